"""Turns what the executor gives into what a model reads: text in words, pictures within a budget, structured data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from executor.results import ExecutionResult, FileInfo, HistoryEntry, Output, Picture, SessionInfo
from executor.settings import UiResources
from space import apps
from space.views import View, count_views, views_of
from space.wording import (
    PICTURE_TYPES,
    body_of,
    choose,
    clean,
    foot_of,
    foremost_of,
    headline,
    middle_cut,
    size_in_short,
    size_words,
)

__all__ = [
    "PICTURE_TYPES",
    "Answer",
    "clean",
    "execution_answer",
    "file_data",
    "history_data",
    "iso",
    "json_answer",
    "refusal",
    "session_data",
    "size_in_short",
    "size_words",
    "structured_result",
]

_MAX_VALUE_CHARS = 20_000
_LISTED_NAMES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a tool call: text blocks, pictures, views for the person, data for programs; `meta`
    is for the client alone.

    An error's text begins with `Error:`.
    """

    texts: tuple[str, ...]
    pictures: tuple[Picture, ...] = ()
    views: tuple[View, ...] = ()
    meta: dict[str, Any] | None = None
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


def execution_answer(
    result: ExecutionResult, *, budget: int, session_note: str = "", ui: UiResources = "off", app: bool = False
) -> Answer:
    """The answer for one execution; characters of text, base64 and HTML together stay within `budget`.

    `session_note` is put behind the session's id. Pictures that do not fit are named in the text with their path.
    `ui` says what also goes out as a view; `app` that the client is one of MCP Apps, whose views no model sees. What a
    terminal would not show is left out of the text, and kept in the structured data.
    """
    failed = not result.success and result.status != "running"
    headed = headline(result) if failed else ""
    head = "\n".join(filter(None, (headed, foremost_of(result))))
    body = body_of(result)
    pictures = [output.picture for output in result.outputs if output.picture is not None]
    foot = foot_of(result, session_note, said=headed)
    fixed = len(head) + len(foot) + 4
    room = budget - fixed - min(len(body), (budget - fixed) // 2)
    shown, notes = choose(pictures, room)
    used = fixed + len(notes) + sum(len(picture.data) for picture in shown)
    # at most half of what is left: the text must not lose its middle for a frame that the model never sees
    left = max(0, budget - used) // 2
    meta: dict[str, Any] = {}
    views: list[View] = []
    if app:
        meta, told, taken = apps.result_meta(result.outputs, ui), "", 0
        if meta:
            told = f"Shown to the person: {count_views(len(meta[apps.VIEWS]))}."
    else:
        views, told, taken = views_of(result.outputs, execution_id=result.execution_id, which=ui, room=left)
    if told:
        notes = f"{notes}\n{told}" if notes else told
        used += taken + len(told) + 1
    body = middle_cut(body, max(0, budget - used))
    if not (headed or body or notes):
        body = "(no output)"
    text = "\n".join(part for part in (head, body, notes, foot) if part)
    return Answer(
        texts=(clean(middle_cut(text, budget - taken)),),
        pictures=tuple(shown),
        views=tuple(views),
        meta=clean(meta) or None,
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
        and clean(
            {
                "type": error.type,
                "message": error.message,
                "line": error.line,
                "traceback": error.traceback,
                "hint": error.hint,
            }
        ),
        "violations": [
            clean({"rule": v.rule, "message": v.message, "line": v.line, "column": v.column, "layer": v.layer})
            for v in result.violations
        ],
        "truncated": result.truncated,
        "notices": [clean(notice) for notice in result.notices],
        "variables": [
            clean({"name": v.name, "type": v.type, "summary": v.summary, "change": v.change}) for v in result.variables
        ],
    }


def file_data(file: FileInfo) -> dict[str, Any]:
    """A file as data."""
    data = {"path": clean(file.path), "size": file.size, "modified": iso(file.modified)}
    if file.change:
        data["change"] = file.change
    return data


def session_data(session: SessionInfo) -> dict[str, Any]:
    """A session as data."""
    data: dict[str, Any] = {
        "session_id": session.id,
        "state": session.state,
        "created_at": iso(session.created_at),
        "last_used": iso(session.last_used),
        "executions": session.executions,
        "running": session.running,
    }
    if session.snapshot_at is not None:
        data["snapshot_at"] = iso(session.snapshot_at)
        data["snapshot_bytes"] = session.snapshot_bytes
        data["names"] = [clean(name) for name in session.names[:_LISTED_NAMES]]
    return data


def history_data(entries: Sequence[HistoryEntry], *, budget: int) -> tuple[list[dict[str, Any]], int]:
    """The newest entries that fit into `budget` characters of JSON, oldest first, and how many had to be left out."""
    kept: list[dict[str, Any]] = []
    for entry in reversed(entries):
        result = structured_result(entry.result)
        data = {
            "code": clean(middle_cut(entry.code, _MAX_VALUE_CHARS) + (f"\n... {entry.cut}" if entry.cut else "")),
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
