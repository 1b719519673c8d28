"""Report: a leader's account of an execution, checked field by field before the server believes its shape."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any, get_args

from executor.backend import Activity, Displayed, ExecutionEvent, Finished, OutputChunk, SessionStats, Tree
from executor.languages.channel import PICTURE_TYPES
from executor.local.wire import FrameError
from executor.parcel import Kind
from executor.results import (
    LANGUAGES,
    STATUSES,
    ErrorInfo,
    ExecutionResult,
    FileInfo,
    Language,
    LanguageState,
    Lost,
    Output,
    Picture,
    Variable,
    Violation,
)

KINDS = get_args(Kind)
FIRST_TIME, LAST_TIME = -62_135_596_800.0, 253_402_300_799.0
"""Seconds since 1970 of the first moment of the year 1 and the last second of 9999, which every calendar here has."""


def event_from(message: dict[str, Any], *, session_id: str, language: Language) -> ExecutionEvent:
    """The event in a leader's message. Raises FrameError where a field is missing or of the wrong type."""
    match message.get("event"):
        case "output":
            stream = _one_of(message, "stream", ("stdout", "stderr"))
            return OutputChunk(stream, _typed(message, "text", str))
        case "display":
            return Displayed(_output(_typed(message, "output", dict)))
        case "finished":
            replaced = message.get("replaced")
            if replaced is not None and not isinstance(replaced, str):
                raise FrameError("`replaced` is no text")
            return Finished(
                _result(_typed(message, "result", dict), session_id, _typed(message, "id", str), language),
                limits=_texts(message, "limits"),
                replaced=replaced,
            )
        case other:
            raise FrameError(f"unknown event {other!r}")


def file_from(data: Any) -> FileInfo:
    """A FileInfo as a leader sends it. Raises FrameError."""
    if not isinstance(data, dict):
        raise FrameError("a file is no object")
    change = data.get("change")
    if change not in (None, "new", "changed"):
        raise FrameError("a file's change is unknown")
    return FileInfo(_typed(data, "path", str), _number(data, "size", int), _time(data, "modified"), change)


def stats_from(data: dict[str, Any]) -> SessionStats:
    """What a session uses. Raises FrameError."""
    return SessionStats(**{field.name: _number(data, field.name, int) for field in fields(SessionStats)})


def activity_from(data: dict[str, Any]) -> Activity:
    """What goes on in a session. Raises FrameError."""
    return Activity(background=_number(data, "background", int), rests=_typed(data, "rests", bool))


def state_from(data: Any) -> LanguageState:
    """What a language's state holds, as a leader tells it. Raises FrameError."""
    if not isinstance(data, dict):
        raise FrameError("a state is no object")
    language: Language = _one_of(data, "language", LANGUAGES)
    lost = []
    for item in _typed(data, "lost", list):
        if not isinstance(item, dict):
            raise FrameError("a lost name is no object")
        cell = None if item.get("cell") is None else _number(item, "cell", int)
        lost.append(
            Lost(_typed(item, "name", str), _typed(item, "type", str), _typed(item, "reason", str), language, cell)
        )
    return LanguageState(language, _texts(data, "names"), tuple(lost), _typed(data, "problem", str))


def tree_from(lines: bytes) -> Tree:
    """The entries of a listing, line by line. Raises FrameError."""
    tree: Tree = {}
    for line in lines.splitlines():
        try:
            path, kind, mode, size, modified, changed, inode = json.loads(line)
        except ValueError as error:
            raise FrameError(f"a line of a listing is none: {error}") from None
        numbers = (mode, size, modified, changed, inode)
        if not isinstance(path, str) or kind not in KINDS or not all(type(number) is int for number in numbers):
            raise FrameError("an entry of a listing has a wrong field")
        tree[path] = (kind, *numbers)
    return tree


def _result(data: dict[str, Any], session_id: str, execution_id: str, language: Language) -> ExecutionResult:
    code = data.get("return_code")
    if code is not None and (not isinstance(code, int) or isinstance(code, bool)):
        raise FrameError("`return_code` is no whole number")
    error = data.get("error")
    return ExecutionResult(
        status=_one_of(data, "status", STATUSES),
        # whose it is, the server knows better than whoever reports
        session_id=session_id,
        execution_id=execution_id,
        language=language,
        stdout=_typed(data, "stdout", str),
        stderr=_typed(data, "stderr", str),
        return_code=code,
        execution_time=_number(data, "execution_time", float),
        outputs=tuple(_output(output) for output in _typed(data, "outputs", list)),
        files=tuple(file_from(file) for file in _typed(data, "files", list)),
        error=None if error is None else _error(error),
        violations=tuple(_violation(violation) for violation in _typed(data, "violations", list)),
        truncated=_typed(data, "truncated", bool),
        notices=_texts(data, "notices"),
        variables=tuple(_variable(variable) for variable in _typed(data, "variables", list)),
    )


def _output(data: Any) -> Output:
    if not isinstance(data, dict):
        raise FrameError("an output is no object")
    bundle = _typed(data, "data", dict)
    picture = data.get("picture")
    return Output(bundle, None if picture is None else _picture(picture), _typed(data, "is_result", bool))


def _picture(data: Any) -> Picture:
    if not isinstance(data, dict):
        raise FrameError("a picture is no object")
    path = data.get("path")
    if path is not None and not isinstance(path, str):
        raise FrameError("a picture's path is no text")
    mime = _one_of(data, "mime", PICTURE_TYPES)
    return Picture(
        mime,
        _typed(data, "data", str),
        _number(data, "width", int),
        _number(data, "height", int),
        path,
        _typed(data, "alt", str),
    )


def _error(data: Any) -> ErrorInfo:
    if not isinstance(data, dict):
        raise FrameError("an error is no object")
    line = data.get("line")
    return ErrorInfo(
        _typed(data, "type", str),
        _typed(data, "message", str),
        None if line is None else _number(data, "line", int),
        _typed(data, "traceback", str),
        _typed(data, "hint", str),
    )


def _variable(data: Any) -> Variable:
    if not isinstance(data, dict):
        raise FrameError("a variable is no object")
    return Variable(
        _typed(data, "name", str),
        _typed(data, "type", str),
        _typed(data, "summary", str),
        _one_of(data, "change", ("new", "changed")),
    )


def _violation(data: Any) -> Violation:
    if not isinstance(data, dict):
        raise FrameError("a violation is no object")
    return Violation(
        _typed(data, "rule", str),
        _typed(data, "message", str),
        _number(data, "line", int),
        _number(data, "column", int),
        _one_of(data, "layer", ("policy", "sandbox")),
    )


def _typed(data: dict[str, Any], key: str, kind: type) -> Any:
    value = data.get(key)
    if not isinstance(value, kind):
        raise FrameError(f"`{key}` is no {kind.__name__}")
    return value


def _number(data: dict[str, Any], key: str, kind: type[int] | type[float]) -> Any:
    value = data.get(key)
    if not isinstance(value, (int, float) if kind is float else int) or isinstance(value, bool):
        raise FrameError(f"`{key}` is no number")
    if not 0 <= value < math.inf:
        raise FrameError(f"`{key}` is out of range")
    return kind(value)


def _time(data: dict[str, Any], key: str) -> float:
    """Seconds since 1970, of a file: the guest sets them, so any number is one, and what no calendar has is moved."""
    value = data.get(key)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or math.isnan(value):
        raise FrameError(f"`{key}` is no time")
    return float(min(max(value, FIRST_TIME), LAST_TIME))


def _one_of(data: dict[str, Any], key: str, allowed: tuple[str, ...]) -> Any:
    value = data.get(key)
    if value not in allowed:
        raise FrameError(f"`{key}` is none of {', '.join(allowed)}")
    return value


def _texts(data: dict[str, Any], key: str) -> tuple[str, ...]:
    values = _typed(data, key, list)
    if not all(isinstance(value, str) for value in values):
        raise FrameError(f"`{key}` holds something that is no text")
    return tuple(values)
