"""Checks: what a worker sends, held against what it may be, before anyone looks at it."""

from __future__ import annotations

from typing import Any

from executor.languages.channel import (
    MAX_ERROR,
    MAX_ID,
    MAX_NAMES,
    MAX_NOTICE,
    MAX_NOTICES,
    MAX_PROBLEM,
    MAX_VARIABLES,
    MAX_WORDS,
    PICTURE_TYPES,
    ErrorData,
    Event,
    LostName,
    PictureData,
    ProtocolError,
    StateHead,
    VariableData,
    parse,
)


def check_event(message: dict[str, Any]) -> Event:
    """`message` as an event with exactly the known keys. Raises ProtocolError."""
    match message.get("event"):
        case "ready":
            return {"event": "ready"}
        case "display":
            data = _typed(message, "data", dict)
            return {
                "event": "display",
                "id": _identifier(message),
                "data": data,
                "picture": _picture(message.get("picture")),
                "is_result": _typed(message, "is_result", bool),
            }
        case "done":
            status = message.get("status")
            if status not in ("ok", "error", "interrupted"):
                raise ProtocolError("A cell ended with an unknown status.")
            notices = _typed(message, "notices", list)
            if len(notices) > MAX_NOTICES or not all(
                isinstance(notice, str) and len(notice) <= MAX_NOTICE for notice in notices
            ):
                raise ProtocolError(f"Notices must be at most {MAX_NOTICES} sentences.")
            return {
                "event": "done",
                "id": _identifier(message),
                "status": status,
                "error": _error(message.get("error")),
                "return_code": _number(message, "return_code", low=-(2**31), high=2**31),
                "notices": notices,
                "variables": _variables(message.get("variables", [])),
            }
        case "restored":
            return {
                "event": "restored",
                "id": _identifier(message),
                "names": _names(message),
                "lost": _lost(message),
                "problem": _problem(message),
            }
    raise ProtocolError("A frame names no known event.")


def state_head(line: bytes) -> StateHead:
    """What a guest's process wrote as first line of a state file. Raises ProtocolError."""
    message = parse(line)
    versions = _typed(message, "versions", dict)
    if len(versions) > 50 or not all(isinstance(v, str) and len(k) + len(v) < MAX_WORDS for k, v in versions.items()):
        raise ProtocolError("The versions of a state are not a few short texts.")
    return StateHead(tuple(_names(message)), tuple(_lost(message)), _problem(message), versions)


def _typed(message: dict[str, Any], key: str, kind: type) -> Any:
    value = message.get(key)
    if not isinstance(value, kind):
        raise ProtocolError(f"`{key}` is not a {kind.__name__}.")
    return value


def _identifier(message: dict[str, Any]) -> str:
    value: str = _typed(message, "id", str)
    if not 0 < len(value) <= MAX_ID:
        raise ProtocolError("An execution id is empty or too long.")
    return value


def _number(message: dict[str, Any], key: str, *, low: int, high: int) -> int:
    value = message.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ProtocolError(f"`{key}` is not a whole number from {low} to {high}.")
    return value


def _picture(value: Any) -> PictureData | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ProtocolError("A picture is not an object.")
    path = value.get("path")
    if path is not None and not isinstance(path, str):
        raise ProtocolError("A picture's path is not a text.")
    mime = _typed(value, "mime", str)
    if mime not in PICTURE_TYPES:
        raise ProtocolError("A picture is of no known type.")
    return {
        "mime": mime,
        "data": _typed(value, "data", str),
        "width": _number(value, "width", low=0, high=1_000_000),
        "height": _number(value, "height", low=0, high=1_000_000),
        "path": path,
        "alt": _typed(value, "alt", str),
    }


def _error(value: Any) -> ErrorData | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise ProtocolError("An error is not an object.")
    line = None if value.get("line") is None else _number(value, "line", low=1, high=100_000_000)
    kind, message, traceback = (_typed(value, key, str) for key in ("type", "message", "traceback"))
    hint = _typed(value, "hint", str) if "hint" in value else ""
    if max(map(len, (kind, message, traceback, hint))) > MAX_ERROR:
        raise ProtocolError("An error is described at too great a length.")
    return {"type": kind, "message": message, "line": line, "traceback": traceback, "hint": hint}


def _variables(value: Any) -> list[VariableData]:
    if not isinstance(value, list) or len(value) > MAX_VARIABLES:
        raise ProtocolError(f"Variables are not a list of at most {MAX_VARIABLES}.")
    return [_variable(item) for item in value]


def _variable(value: Any) -> VariableData:
    if not isinstance(value, dict):
        raise ProtocolError("A variable is not an object.")
    change = value.get("change")
    if change not in ("new", "changed"):
        raise ProtocolError("A variable's change is unknown.")
    name, kind, summary = (_typed(value, key, str) for key in ("name", "type", "summary"))
    if max(len(name), len(kind), len(summary)) > MAX_WORDS:
        raise ProtocolError("A variable is described at too great a length.")
    return {"name": name, "type": kind, "summary": summary, "change": change}


def _names(message: dict[str, Any]) -> list[str]:
    names: list[str] = _typed(message, "names", list)
    if len(names) > MAX_NAMES or not all(isinstance(name, str) and len(name) <= MAX_WORDS for name in names):
        raise ProtocolError(f"The names of a state are not at most {MAX_NAMES} short texts.")
    return names


def _lost(message: dict[str, Any]) -> list[LostName]:
    found = _typed(message, "lost", list)
    if len(found) > MAX_NAMES:
        raise ProtocolError(f"A state lost more than {MAX_NAMES} names.")
    return [_lost_name(item) for item in found]


def _lost_name(value: Any) -> LostName:
    if not isinstance(value, dict):
        raise ProtocolError("A lost name is not an object.")
    name, kind, reason = (_typed(value, key, str) for key in ("name", "type", "reason"))
    if max(len(name), len(kind), len(reason)) > MAX_WORDS:
        raise ProtocolError("A lost name is described at too great a length.")
    cell = None if value.get("cell") is None else _number(value, "cell", low=0, high=2**31)
    return {"name": name, "type": kind, "reason": reason, "cell": cell}


def _problem(message: dict[str, Any]) -> str:
    problem: str = _typed(message, "problem", str)
    if len(problem) > MAX_PROBLEM:
        raise ProtocolError("A problem is described at too great a length.")
    return problem
