"""History: the last hour in samples, and the newest violations and errors, for the operator's tab."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Any

from executor import events
from monitoring.journal import OWN_FAULT
from monitoring.live import Live
from monitoring.pseudonyms import Pseudonyms

INTERVAL = 10.0
"""Seconds between two samples."""
_SAMPLES = 360
_NOTES = 100
_DURATIONS = 2000


@dataclass(frozen=True, slots=True)
class Sample:
    """What happened in the seconds since the sample before, and how things stood at its end.

    `at` in seconds since 1970; `p50`, `p95` and `p99` of executions' durations in seconds, None where there were none;
    `memory` (all sessions) and `folder_bytes` in bytes as last measured.
    """

    at: float
    executions: int
    failed: int
    violations: int
    p50: float | None
    p95: float | None
    p99: float | None
    sessions: int
    in_flight: int
    memory: int
    folder_bytes: int


@dataclass(frozen=True, slots=True)
class Note:
    """A violation or an error: when, what kind, whose (pseudonyms, empty for nobody's), and a sentence."""

    at: float
    kind: str
    session: str
    owner: str
    text: str


@dataclass(frozen=True, slots=True)
class SessionRow:
    """A live session as the operator sees it; `session_id` is for acting on it, never to be shown.

    Times in seconds, sizes in bytes as last measured; `running` is the language at work, empty while idle, and
    `running_seconds` how long it has been.
    """

    session_id: str
    execution_id: str
    session: str
    owner: str
    age: float
    idle: float
    executions: int
    memory: int
    processes: int
    folder_bytes: int
    running: str
    running_seconds: float


class History:
    """Of bounded size whatever happens: 360 samples, 100 notes of each sort. Written by the thread that delivers events
    (`update`) and by whoever calls `sample`; read by any."""

    def __init__(self, live: Live, pseudonyms: Pseudonyms) -> None:
        self._live = live
        self._of = pseudonyms.of
        self._samples: deque[Sample] = deque(maxlen=_SAMPLES)
        self._violations: deque[Note] = deque(maxlen=_NOTES)
        self._errors: deque[Note] = deque(maxlen=_NOTES)
        self._durations: deque[float] = deque(maxlen=_DURATIONS)
        self._executions = self._failed = self._violated = 0
        self._told = (0, 0, 0)

    def samples(self) -> list[Sample]:
        """Up to an hour, oldest first."""
        return list(self._samples)

    def violations(self) -> list[Note]:
        """Newest first."""
        return list(reversed(self._violations))

    def errors(self) -> list[Note]:
        """Faults of ours, workers that died, executions that crashed or were lost; newest first."""
        return list(reversed(self._errors))

    def sessions(self, now: float | None = None) -> list[SessionRow]:
        """The live sessions, oldest first, at `now` (seconds since 1970)."""
        at = time.time() if now is None else now
        at_work = {execution.session_id: execution for execution in self._live.executions()}
        rows = []
        for session in self._live.sessions():
            execution = at_work.get(session.session_id)
            rows.append(
                SessionRow(
                    session_id=session.session_id,
                    execution_id=execution.execution_id if execution else "",
                    session=self._of(session.session_id),
                    owner=self._of(session.owner),
                    age=at - session.opened_at,
                    idle=0.0 if execution else at - session.last_used,
                    executions=session.executions,
                    memory=session.memory,
                    processes=session.processes,
                    folder_bytes=session.folder_bytes,
                    running=execution.language if execution else "",
                    running_seconds=at - execution.started_at if execution else 0.0,
                )
            )
        return rows

    def sample(self, now: float | None = None) -> None:
        """Close the current interval; to be called every `INTERVAL` seconds."""
        durations: list[float] = []
        while self._durations:
            durations.append(self._durations.popleft())
        durations.sort()
        counts = self._executions, self._failed, self._violated
        executions, failed, violations = (new - old for new, old in zip(counts, self._told, strict=True))
        self._told = counts
        sessions = self._live.sessions()
        self._samples.append(
            Sample(
                at=time.time() if now is None else now,
                executions=executions,
                failed=failed,
                violations=violations,
                p50=_quantile(durations, 0.50),
                p95=_quantile(durations, 0.95),
                p99=_quantile(durations, 0.99),
                sessions=len(sessions),
                in_flight=len(self._live.executions()),
                memory=sum(session.memory for session in sessions),
                folder_bytes=sum(session.folder_bytes for session in sessions),
            )
        )

    def update(self, event: events.Event) -> None:
        """Take `event` in."""
        match event:
            case events.ExecutionFinished():
                self._executions += 1
                self._durations.append(event.seconds)
                if event.status != "ok":
                    self._failed += 1
                if event.status in OWN_FAULT:
                    self._errors.append(self._note(event, event.status, f"{event.language}, {event.execution_id}"))
            case events.ViolationFound():
                self._violated += 1
                found = event.violation
                text = f"{event.language}: {found.rule}, line {found.line} ({found.layer})"
                self._violations.append(self._note(event, found.rule, text))
            case events.WorkerReplaced():
                self._errors.append(self._note(event, "worker replaced", f"{event.language}: {event.cause}"))
            case events.Fault():
                self._errors.append(self._note(event, event.where, event.detail))
            case events.BackendStarted(restart=True):
                self._errors.append(self._note(event, "backend restarted", f"in {event.seconds:.1f} s"))
            case events.ToolCalled(outcome="fault"):
                self._errors.append(self._note(event, "call failed", event.tool[:64]))

    def _note(self, event: Any, kind: str, text: str) -> Note:
        session, owner = getattr(event, "session_id", None), getattr(event, "owner", "")
        return Note(event.at, kind, self._of(session or ""), self._of(owner), text)


def _quantile(ordered: list[float], q: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))] if ordered else None
