"""Reader: log lines as this app prints them, filtered and made readable again; pure, for whoever fetched them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

Record = dict[str, Any]

_TROUBLED_LEVELS = frozenset({"warning", "error", "critical"})
_TROUBLED_STATUSES = frozenset({"timeout", "memory", "disk", "crashed", "lost"})
_FIRST = ("tool", "language", "status", "outcome", "reason", "rule", "where", "seconds")
_COLORS = {"warning": "\x1b[33m", "error": "\x1b[31m", "critical": "\x1b[31m"}
_RESET = "\x1b[0m"


def parse(line: str) -> Record:
    """The fields of a log line; a line that is not ours (a traceback of the interpreter's own, a print of a library)
    becomes `{"event": line}`. Never raises."""
    text = line.strip()
    if text.startswith("{"):
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = None
        if isinstance(data, dict):
            return data
    return {"event": text}


def wanted(record: Record, *, errors: bool = False, session: str = "") -> bool:
    """Whether the record passes the filters: `errors` for what needs a look (warnings and errors, executions stopped by
    a limit, crashed or lost), `session` for the beginning of a session's pseudonym as the log shows it."""
    if errors and not (
        record.get("level") in _TROUBLED_LEVELS
        or record.get("status") in _TROUBLED_STATUSES
        or "Traceback (most recent call last)" in str(record.get("event", ""))
    ):
        return False
    return not session or str(record.get("session", "")).startswith(session)


def render(record: Record, *, colors: bool = False) -> str:
    """The record as a line for people: time, level, event, what matters most, then the rest; an exception below it."""
    rest = {key: value for key, value in record.items() if key not in ("at", "level", "event", "exception")}
    ordered = [key for key in _FIRST if key in rest] + [key for key in rest if key not in _FIRST]
    fields = " ".join(f"{key}={_plain(rest[key])}" for key in ordered)
    level = str(record.get("level", ""))
    head = f"{_time(record)} {level:8.8} {_plain(record.get('event', ''), quoted=False)}".strip()
    line = f"{head}  {fields}".rstrip()
    if exception := record.get("exception"):
        below = (_plain(text, quoted=False) for text in str(exception).splitlines())
        line += "".join(f"\n    {text}" for text in below)
    return f"{_COLORS[level]}{line}{_RESET}" if colors and level in _COLORS else line


def read(
    lines: Iterable[str], *, errors: bool = False, session: str = "", colors: bool = False, raw: bool = False
) -> Iterator[str]:
    """The wanted ones of `lines`, readable, or as they came where `raw`; empty lines are left out."""
    for line in lines:
        if not line.strip():
            continue
        record = parse(line)
        if wanted(record, errors=errors, session=session):
            yield line.rstrip("\r\n") if raw else render(record, colors=colors)


def _time(record: Record) -> str:
    return str(record.get("at", "")).replace("T", " ")[:23]


def _plain(value: Any, *, quoted: bool = True) -> str:
    """`value` without control characters, which could move a terminal's cursor; in quotes where it has spaces."""
    if isinstance(value, (dict, list)):
        value = json.dumps(value, ensure_ascii=False)
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(value))
    return f'"{text}"' if quoted and (" " in text or not text) else text
