"""Account: what a snapshot says about its session, beside its state and files, and what is told when it comes back."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from executor.packages.shelf import Shelf
from executor.results import ExecutionResult, HistoryEntry, LanguageState, Lost
from executor.sessions import HISTORY_CODE, Session, SnapshotState, history_of
from executor.settings import Settings
from executor.store import Record, Snapshot

_FORMER_CUT = re.compile(r"\n\.\.\. cut: ([\d,]+) characters in all \.\.\.")
"""What stood behind code that was cut, before `whole_chars` said so."""


@dataclass(frozen=True, slots=True)
class Told:
    """What is said of a session's return: what was lost by it is to be told whatever comes between (`lasting`), that it
    was parked, and what parking does not keep, is found anew with every return (`anew`)."""

    lasting: list[str] = field(default_factory=list)
    anew: list[str] = field(default_factory=list)


def meta_of(
    session: Session, states: Mapping[Any, LanguageState], *, executions: int, parked: bool, blank: bool = False
) -> dict[str, Any]:
    """What is stored beside a snapshot; `blank` where nothing but the session's existence is saved."""
    return {
        "owner": session.owner,
        "conversation": session.conversation,
        "own": session.own,
        "created_at": session.created_at,
        "last_used": session.last_used,
        "executions": executions,
        "numbers": dict(session.numbers),
        "packages": {language: shelf.to_json() for language, shelf in session.packages.items()},
        "parked": parked,
        "blank": blank,
        "untold": list(session.notices),
        "states": [
            {
                "language": state.language,
                "names": list(state.names),
                "lost": [[lost.name, lost.type, lost.reason, lost.cell] for lost in state.lost],
                "problem": state.problem,
            }
            for state in states.values()
        ],
    }


def session_of(record: Record, settings: Settings) -> Session | None:
    """The parked session that a snapshot tells of; None where it makes no sense."""
    meta = record.meta
    try:
        if not (isinstance(meta["owner"], str) and isinstance(meta["conversation"], str | None)):
            return None
        states = {
            state["language"]: LanguageState(
                state["language"],
                tuple(state["names"]),
                tuple(Lost(name, kind, why, state["language"], cell) for name, kind, why, cell in state["lost"]),
                state["problem"],
            )
            for state in meta["states"]
        }
        return Session(
            id=record.session_id,
            owner=meta["owner"],
            conversation=meta["conversation"],
            own=meta["own"],
            ref=None,
            history=history_of(settings),
            created_at=float(meta["created_at"]),
            last_used=float(meta["last_used"]),
            touched=time.monotonic() - max(0.0, time.time() - float(meta["last_used"])),
            executions=int(meta["executions"]),
            notices=[str(notice) for notice in meta.get("untold", ())],
            numbers={language: int(number) for language, number in meta["numbers"].items()},
            packages={
                language: Shelf.from_json(language, shelf) for language, shelf in meta.get("packages", {}).items()
            },
            snapshot=SnapshotState(
                taken_at=record.taken_at,
                bytes=record.bytes,
                executions=int(meta["executions"]),
                states=states,
                clean=bool(meta["parked"]),
                says_parked=bool(meta["parked"]),
                blank=bool(meta.get("blank", False)),
            ),
        )
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
        return None


def adopt(session: Session, snapshot: Snapshot, settings: Settings) -> None:
    """What is loaded is not the snapshot that was known: another server has written it meanwhile, or a newer one could
    not be read. The session is as this one says."""
    record = Record(session.id, snapshot.meta, snapshot.taken_at, snapshot.bytes, snapshot.sequence)
    if snapshot.taken_at == session.snapshot.taken_at or (found := session_of(record, settings)) is None:
        return
    session.numbers, session.packages, session.executions = found.numbers, found.packages, found.executions
    ours, its = session.snapshot, found.snapshot
    ours.taken_at, ours.bytes, ours.executions, ours.states = its.taken_at, its.bytes, its.executions, its.states
    ours.clean, ours.says_parked, ours.blank = its.clean, its.says_parked, its.blank


def told(session: Session, snapshot: Snapshot, states: list[LanguageState]) -> Told:
    """What the next result says about a session that came back."""
    if session.snapshot.blank:
        return Told(
            lasting=[
                "Session restored empty: its process or the server ended unexpectedly before anything of it was saved. "
                "Variables and files that it had are lost, and nothing was run again: run the cells again."
            ]
        )
    said = []
    when = time.strftime("%H:%M:%S UTC", time.gmtime(snapshot.taken_at))
    if session.snapshot.clean:
        said.append("Session restored, it was parked.")
    else:
        said.append(
            f"Session restored as it was at {when}, after {session.snapshot.executions} executions: its process or the "
            "server ended unexpectedly. What ran later is lost and was not run again."
        )
    for state in states:
        prefix = "" if state.language == "python" else f"{state.language}: "
        if state.problem:
            said.append(f"{prefix or 'python: '}its variables are lost: {state.problem}")
            continue
        parts = []
        if state.names:
            parts.append(f"restored: {_few(list(state.names))}")
        known = session.snapshot.states.get(state.language)
        lost = {name.name: name for name in (*(known.lost if known else ()), *state.lost)}
        if lost:
            parts.append(f"lost: {_few([_lost(name) for name in lost.values()])}")
        if parts:
            said.append(prefix + "; ".join(parts) + ".")
    found = Told(anew=[" ".join(said)]) if session.snapshot.clean else Told(lasting=[" ".join(said)])
    if snapshot.damaged:
        found.lasting.append(f"Files that could not be read from the snapshot, and are lost: {_few(snapshot.damaged)}.")
    return found


def _lost(name: Lost) -> str:
    again = f": run cell {name.cell} again" if name.cell else ""
    return f"{name.name} ({name.reason}){again}"


def _few(texts: list[str], most: int = 30) -> str:
    more = f" and {len(texts) - most} more" if len(texts) > most else ""
    return ", ".join(texts[:most]) + more


def history_bytes(history: list[HistoryEntry]) -> bytes:
    """What ran, as it is stored."""
    return json.dumps(
        [
            {
                "code": entry.code,
                "whole_chars": entry.whole_chars,
                "language": entry.language,
                "timestamp": entry.timestamp,
                "result": entry.result.to_json(),
            }
            for entry in history
        ]
    ).encode()


def history_from(data: bytes) -> list[HistoryEntry]:
    """What ran; nothing where what was stored cannot be read."""
    try:
        return [_entry_from(entry) for entry in json.loads(data or b"[]")]
    except (ValueError, KeyError, TypeError):
        return []


def _entry_from(entry: Mapping[str, Any]) -> HistoryEntry:
    code, whole = entry["code"], entry.get("whole_chars", 0)
    # whole code was never longer than this, so nothing that somebody wrote is taken for our mark
    if former := _FORMER_CUT.fullmatch(code, HISTORY_CODE):
        code, whole = code[:HISTORY_CODE], int(former[1].replace(",", ""))
    return HistoryEntry(
        code=code,
        language=entry["language"],
        timestamp=entry["timestamp"],
        result=ExecutionResult.from_json(entry["result"]),
        whole_chars=whole,
    )
