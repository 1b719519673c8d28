"""The text of an execution's answer, part by part: headline, what came out, pictures, what else there is to know."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from executor.results import ExecutionResult, Output, Picture, Variable
from space.terminal import plain

PICTURE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_BARE_REPR = re.compile(
    r"\[?(<(IPython\.core\.display|PIL\.|Figure size |matplotlib\.|Axes)[^<>]*>(,\s*)?)+\]?|Text\([^\n]*\)"
)
_LISTED_FILES = 20
_LISTED_PICTURES = 40
_MAX_DEPTH = 32
_MAX_NOTE_CHARS = 600
_MAX_SHOWN_VALUE = 10_000
"""Characters of one displayed value in the text, as many as of a stream."""
_VARIABLES_CHARS = 600
_OF_THE_SESSION = ("Session restored", "This is a new session")
"""How notices begin that change what the rest of an answer means: its variables may be others than one thinks."""
_MAX_FOREMOST_CHARS = 2_000
_INTERACTIVE = re.compile(r"<(script|table)\b", re.IGNORECASE)
_KINDS = {"script": "interactive HTML for the person to see", "table": "an HTML table for the person to see"}


def size_words(size: int) -> str:
    """A number of bytes for a reader."""
    return "1 byte" if size == 1 else f"{size:,} bytes"


def size_in_short(size: int) -> str:
    """A number of bytes in three digits: `1.4 MB`."""
    value, unit = float(size), "bytes"
    for larger in ("kB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return f"{value:.0f} {unit}" if value >= 10 or unit == "bytes" else f"{value:.1f} {unit}"


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


def headline(result: ExecutionResult) -> str:
    """The first line of what failed, `Error: …`, and the hint where there is one."""
    error = result.error
    where = f" (line {error.line})" if error and error.line else ""
    if error and result.status == "error":
        message = _clip(plain(error.message), 2_000)
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
    hint = f"\nHint: {_clip(plain(error.hint), _MAX_NOTE_CHARS)}" if error and error.hint else ""
    return f"Error: {said}{where}{hint}"


def foremost_of(result: ExecutionResult) -> str:
    """The notices that belong before the output: what has become of the session."""
    told = [notice for notice in result.notices if notice.startswith(_OF_THE_SESSION)]
    return "\n".join(f"Note: {_clip(plain(notice), _MAX_FOREMOST_CHARS)}" for notice in told[:3])


def body_of(result: ExecutionResult) -> str:
    """What the code printed and displayed, and its traceback."""
    stdout, stderr = plain(result.stdout), plain(result.stderr)
    parts = [stdout.rstrip("\n")] if stdout.strip("\n") else []
    drawn = any(output.picture for output in result.outputs)
    parts += [text for output in result.outputs if (text := _text_of(output, drawn=drawn))]
    if stderr.strip():
        parts.append(f"stderr:\n{stderr.rstrip()}")
    if (error := result.error) and error.traceback and error.traceback not in result.stderr:
        # its last line is our first one
        traceback = error.traceback.rstrip().removesuffix(f"{error.type}: {error.message}").rstrip()
        parts.append(plain(traceback))
    return "\n".join(parts)


def _text_of(output: Output, *, drawn: bool) -> str:
    """A displayed value in words; `drawn` says that pictures came out, so that a bare plot object need not be told."""
    return middle_cut(plain(_words_of(output, drawn=drawn)), _MAX_SHOWN_VALUE)


def _words_of(output: Output, *, drawn: bool) -> str:
    data = output.data
    own = data.get("text/plain")
    if isinstance(own, str) and own.strip() and not _BARE_REPR.fullmatch(own.strip()):
        return own.rstrip("\n")
    for mime in ("text/markdown", "text/latex"):
        if isinstance(text := data.get(mime), str) and text.strip():
            return text.rstrip("\n")
    if output.picture is not None:
        return ""
    if (value := data.get("application/json")) is not None:
        return json.dumps(clean(value), ensure_ascii=False)
    for mime in ("text/html", "image/svg+xml", "application/javascript"):
        if isinstance(text := data.get(mime), str) and text.strip():
            if mime == "text/html" and len(text) <= 2_000:
                return text
            kind = _INTERACTIVE.search(text) if mime == "text/html" else None
            return f"({_KINDS[kind[1].lower()] if kind else mime}, {len(text):,} characters)"
    return own if isinstance(own, str) and not drawn else ""


def choose(pictures: list[Picture], room: int) -> tuple[list[Picture], str]:
    """The pictures that go out, first come first served within `room` characters, and a line for each of all."""
    shown: list[Picture] = []
    lines: list[str] = []
    for number, picture in enumerate(pictures, 1):
        about = f"Picture {number}: {_clip(picture.path or 'no file', 200)}, {picture.width}x{picture.height}"
        if picture.alt:
            about += f", {_clip(plain(picture.alt), 300)}"
        room -= len(about) + 60
        fits = len(picture.data) <= room
        if fits and picture.mime in PICTURE_TYPES and _BASE64.fullmatch(picture.data):
            shown.append(picture)
            room -= len(picture.data)
        else:
            # the sandbox sends a picture without data where its own budget was used up
            roomless = not fits or not picture.data
            about += f" (not attached: {'no room left in this answer' if roomless else 'no valid picture'})"
        lines.append(about)
    if len(lines) > _LISTED_PICTURES:
        lines[_LISTED_PICTURES:] = [f"… and {len(lines) - _LISTED_PICTURES} more pictures in the session's folder"]
    return shown, "\n".join(lines)


def foot_of(result: ExecutionResult, session_note: str, *, said: str) -> str:
    """What else there is to know: variables, files, notices that `said` does not hold, the session."""
    lines = []
    if result.variables:
        lines.append(f"Variables: {_variables(result.variables)}")
    drawn = {output.picture.path for output in result.outputs if output.picture is not None}
    files = [file for file in result.files if file.path not in drawn]
    if files:
        named = [f"{_clip(f.path, 200)} ({size_words(f.size)}, {f.change or 'there'})" for f in files[:_LISTED_FILES]]
        if len(files) > _LISTED_FILES:
            named.append(f"and {len(files) - _LISTED_FILES} more")
        lines.append(f"Files: {', '.join(named)}")
    notices = [notice for notice in result.notices if notice not in said and not notice.startswith(_OF_THE_SESSION)]
    lines += [f"Note: {_clip(plain(notice), _MAX_NOTE_CHARS)}" for notice in notices[:20]]
    if result.status == "running":
        lines.append(f"Still running as execution_id: {result.execution_id}")
    lines.append(f"session_id: {result.session_id}{session_note}")
    return "\n".join(lines)


def _variables(variables: Sequence[Variable]) -> str:
    """`df: DataFrame 1000x3; x: int = 41`, as many as fit."""
    told: list[str] = []
    room = _VARIABLES_CHARS
    for variable in variables:
        words = f"{variable.name}: {variable.type} {variable.summary}".rstrip()
        if (room := room - len(words) - 2) < 0:
            told.append(f"and {len(variables) - len(told)} more")
            break
        told.append(words)
    return plain("; ".join(told))


def middle_cut(text: str, limit: int) -> str:
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
