"""Turns what the executor gives into what a model reads: text in words, pictures within a budget, structured data."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from executor.results import ExecutionResult, FileInfo, HistoryEntry, Output, Picture, SessionInfo

PICTURE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_BARE_REPR = re.compile(
    r"\[?(<(IPython\.core\.display|PIL\.|Figure size |matplotlib\.|Axes)[^<>]*>(,\s*)?)+\]?|Text\([^\n]*\)"
)
_LISTED_FILES = 20
_LISTED_PICTURES = 40
_MAX_DEPTH = 32
_MAX_VALUE_CHARS = 20_000
_MAX_NOTE_CHARS = 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a tool call: text blocks, pictures, data for programs. An error's text begins with `Error:`."""

    texts: tuple[str, ...]
    pictures: tuple[Picture, ...] = ()
    structured: dict[str, Any] | None = None
    is_error: bool = False
    session_id: str | None = None


def refusal(sentence: str) -> Answer:
    """The answer to a call that could not be done as asked."""
    return Answer(texts=(f"Error: {clean(sentence)}",), is_error=True)


def json_answer(data: dict[str, Any], *, session_id: str | None = None) -> Answer:
    """An answer whose text is `data` as JSON."""
    data = clean(data)
    return Answer(texts=(json.dumps(data, ensure_ascii=False),), structured=data, session_id=session_id)


def execution_answer(result: ExecutionResult, *, budget: int, session_note: str = "") -> Answer:
    """The answer for one execution; characters of text and base64 together stay within `budget`.

    `session_note` is put behind the session's id. Pictures that do not fit are named in the text with their path.
    """
    failed = not result.success and result.status != "running"
    head = _headline(result) if failed else ""
    body = _body(result)
    pictures = [output.picture for output in result.outputs if output.picture is not None]
    foot = _foot(result, session_note)
    fixed = len(head) + len(foot) + 4
    room = budget - fixed - min(len(body), (budget - fixed) // 2)
    shown, notes = _choose(pictures, room)
    used = fixed + len(notes) + sum(len(picture.data) for picture in shown)
    body = _middle_cut(body, max(0, budget - used))
    if not (head or body or notes):
        body = "(no output)"
    text = "\n".join(part for part in (head, body, notes, foot) if part)
    return Answer(
        texts=(clean(_middle_cut(text, budget)),),
        pictures=tuple(shown),
        structured=structured_result(result),
        is_error=failed,
        session_id=result.session_id,
    )


def structured_result(result: ExecutionResult) -> dict[str, Any]:
    """The result for programs: the recipe's keys and ours. `plot` is always null, because pictures are image blocks
    of the answer; here a picture is its path, type and size, never base64."""
    error = result.error
    return {
        "success": result.success,
        "status": result.status,
        "stdout": clean(result.stdout),
        "stderr": clean(result.stderr),
        "return_code": result.return_code,
        "execution_time": round(result.execution_time, 6),
        "session_id": result.session_id,
        "execution_id": result.execution_id,
        "language": result.language,
        "plot": None,
        "outputs": [_structured_output(output) for output in result.outputs],
        "files": [file_data(file) for file in result.files],
        "error": error
        and clean({"type": error.type, "message": error.message, "line": error.line, "traceback": error.traceback}),
        "violations": [
            clean({"rule": v.rule, "message": v.message, "line": v.line, "column": v.column, "layer": v.layer})
            for v in result.violations
        ],
        "truncated": result.truncated,
        "notices": [clean(notice) for notice in result.notices],
    }


def file_data(file: FileInfo) -> dict[str, Any]:
    """A file as data."""
    data = {"path": clean(file.path), "size": file.size, "modified": iso(file.modified)}
    if file.change:
        data["change"] = file.change
    return data


def session_data(session: SessionInfo) -> dict[str, Any]:
    """A session as data."""
    return {
        "session_id": session.id,
        "created_at": iso(session.created_at),
        "last_used": iso(session.last_used),
        "executions": session.executions,
        "running": session.running,
    }


def history_data(entries: Sequence[HistoryEntry], *, budget: int) -> tuple[list[dict[str, Any]], int]:
    """The newest entries that fit into `budget` characters of JSON, oldest first, and how many had to be left out."""
    kept: list[dict[str, Any]] = []
    for entry in reversed(entries):
        result = structured_result(entry.result)
        data = {
            "code": clean(_middle_cut(entry.code, _MAX_VALUE_CHARS)),
            "language": entry.language,
            "result": {name: value for name, value in result.items() if value not in (None, [], "")},
            "timestamp": iso(entry.timestamp),
        }
        budget -= len(json.dumps(data, ensure_ascii=False)) + 2
        if budget < 0:
            break
        kept.append(data)
    kept.reverse()
    return kept, len(entries) - len(kept)


def iso(seconds: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def size_words(size: int) -> str:
    """A number of bytes for a reader."""
    return "1 byte" if size == 1 else f"{size:,} bytes"


def clean(value: Any, depth: int = 0) -> Any:
    """`value` so that it can travel as JSON: lone surrogates replaced, nesting and length bounded.

    Workers are not trusted; what cannot be encoded would otherwise end the connection of everybody on it.
    """
    if isinstance(value, str):
        if value.isascii():
            return value
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "replace").decode()
        return value
    if isinstance(value, (dict, list, tuple)):
        if depth >= _MAX_DEPTH:
            return "(nested too deeply)"
        if isinstance(value, dict):
            return {clean(str(key)): clean(item, depth + 1) for key, item in value.items()}
        return [clean(item, depth + 1) for item in value]
    return value


def _headline(result: ExecutionResult) -> str:
    error = result.error
    where = f" (line {error.line})" if error and error.line else ""
    if error and result.status == "error":
        message = _clip(error.message, 2_000)
        said = f"{error.type}: {message}" if message else error.type
    elif result.violations:
        said = " ".join(_clip(violation.message, _MAX_NOTE_CHARS) for violation in result.violations[:5])
    else:
        said = {
            "timeout": f"the time limit stopped the code after {result.execution_time:.1f} s",
            "interrupted": "the code was interrupted",
            "blocked": "the code is not allowed here",
            "memory": "the session's memory limit stopped the code",
            "disk": "the session's folder is full",
            "crashed": f"the {result.language} process ended unexpectedly (code {result.return_code})",
            "lost": "the session was lost while the code ran",
        }.get(result.status, f"exit status {result.return_code}")
    return f"Error: {said}{where}"


def _body(result: ExecutionResult) -> str:
    """What the code printed and displayed, and its traceback."""
    parts = [result.stdout.rstrip("\n")] if result.stdout.strip("\n") else []
    drawn = any(output.picture for output in result.outputs)
    parts += [text for output in result.outputs if (text := _text_of(output, drawn=drawn))]
    if result.stderr.strip():
        parts.append(f"stderr:\n{result.stderr.rstrip()}")
    if (error := result.error) and error.traceback and error.traceback not in result.stderr:
        # its last line is our first one
        traceback = error.traceback.rstrip().removesuffix(f"{error.type}: {error.message}").rstrip()
        parts.append(traceback)
    return "\n".join(parts)


def _text_of(output: Output, *, drawn: bool) -> str:
    """A displayed value in words; `drawn` says that pictures came out, so that a bare plot object need not be told."""
    data = output.data
    plain = data.get("text/plain")
    if isinstance(plain, str) and plain.strip() and not _BARE_REPR.fullmatch(plain.strip()):
        return plain.rstrip("\n")
    for mime in ("text/markdown", "text/latex"):
        if isinstance(text := data.get(mime), str) and text.strip():
            return text.rstrip("\n")
    if output.picture is not None:
        return ""
    if (value := data.get("application/json")) is not None:
        return json.dumps(clean(value), ensure_ascii=False)
    for mime in ("text/html", "image/svg+xml", "application/javascript"):
        if isinstance(text := data.get(mime), str) and text.strip():
            return text if mime == "text/html" and len(text) <= 2_000 else f"({mime}, {len(text):,} characters)"
    return plain if isinstance(plain, str) and not drawn else ""


def _choose(pictures: list[Picture], room: int) -> tuple[list[Picture], str]:
    """The pictures that go out, first come first served within `room` characters, and a line for each of all."""
    shown: list[Picture] = []
    lines: list[str] = []
    for number, picture in enumerate(pictures, 1):
        about = f"Picture {number}: {_clip(picture.path or 'no file', 200)}, {picture.width}x{picture.height}"
        if picture.alt:
            about += f", {_clip(picture.alt, 300)}"
        room -= len(about) + 60
        fits = len(picture.data) <= room
        if fits and picture.mime in PICTURE_TYPES and _BASE64.fullmatch(picture.data):
            shown.append(picture)
            room -= len(picture.data)
        else:
            about += " (not attached: no room left in this answer)" if not fits else " (not attached: no valid picture)"
        lines.append(about)
    if len(lines) > _LISTED_PICTURES:
        lines[_LISTED_PICTURES:] = [f"… and {len(lines) - _LISTED_PICTURES} more pictures in the session's folder"]
    return shown, "\n".join(lines)


def _foot(result: ExecutionResult, session_note: str) -> str:
    lines = []
    drawn = {output.picture.path for output in result.outputs if output.picture is not None}
    files = [file for file in result.files if file.path not in drawn]
    if files:
        named = [f"{_clip(f.path, 200)} ({size_words(f.size)}, {f.change or 'there'})" for f in files[:_LISTED_FILES]]
        if len(files) > _LISTED_FILES:
            named.append(f"and {len(files) - _LISTED_FILES} more")
        lines.append(f"Files: {', '.join(named)}")
    lines += [f"Note: {_clip(notice, _MAX_NOTE_CHARS)}" for notice in result.notices[:20]]
    if result.status == "running":
        lines.append(f"Still running as execution_id: {result.execution_id}")
    lines.append(f"session_id: {result.session_id}{session_note}")
    return "\n".join(lines)


def _structured_output(output: Output) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for mime, value in output.data.items():
        safe = clean(value)
        size = len(safe) if isinstance(safe, str) else len(json.dumps(safe))
        data[clean(mime)] = safe if size <= _MAX_VALUE_CHARS else f"(cut: {size:,} characters)"
    picture = output.picture
    return {
        "data": data,
        "is_result": output.is_result,
        "picture": picture
        and clean(
            {
                "path": picture.path,
                "type": picture.mime,
                "size": len(picture.data) * 3 // 4,
                "width": picture.width,
                "height": picture.height,
                "alt": picture.alt,
            }
        ),
    }


def _middle_cut(text: str, limit: int) -> str:
    """`text` in at most `limit` characters: head and tail kept, and a line between them that says what is gone."""
    if len(text) <= limit:
        return text
    line = f"\n… {len(text) - limit:,} characters cut …\n"
    keep = limit - len(line) - 8  # the number in the line grows by what the line itself pushes out
    if keep <= 0:
        return text[:limit]
    head = keep * 2 // 3
    line = f"\n… {len(text) - keep:,} characters cut …\n"
    return text[:head] + line + text[len(text) - (keep - head) :]


def _clip(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
