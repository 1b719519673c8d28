"""Live: the sessions and executions there are now, as far as events tell."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from executor import events
from executor.results import Language

_ORPHANS = 100


@dataclass(slots=True)
class LiveExecution:
    """An execution at work; `code` is kept only where it may be logged. Times in seconds since 1970."""

    session_id: str
    execution_id: str
    language: Language
    started_at: float
    queued: float
    code_chars: int
    code_sha256: str
    code: str | None = None


@dataclass(slots=True)
class LiveSession:
    """A session that has not ended; bytes and processes as last measured, times in seconds since 1970."""

    session_id: str
    owner: str
    opened_at: float
    last_used: float
    executions: int = 0
    memory: int = 0
    processes: int = 0
    folder_bytes: int = 0


class Live:
    """Written by the one thread that delivers events; read by any, through `sessions` and `executions`.

    Its size is bounded by the sessions there may be, and a few executions whose session ended under them.
    """

    def __init__(self, *, keep_code: bool = False) -> None:
        self._keep_code = keep_code
        self._sessions: dict[str, LiveSession] = {}
        self._executions: dict[str, LiveExecution] = {}
        self._orphans: OrderedDict[str, LiveExecution] = OrderedDict()

    def sessions(self) -> list[LiveSession]:
        """The live sessions, oldest first."""
        return list(self._sessions.values())

    def executions(self) -> list[LiveExecution]:
        """The executions at work, oldest first."""
        return list(self._executions.values())

    def execution(self, execution_id: str) -> LiveExecution | None:
        """The execution under that id, at work or about to end with its session."""
        return self._executions.get(execution_id) or self._orphans.get(execution_id)

    def update(self, event: events.Event) -> None:
        """Note what `event` changes."""
        match event:
            case events.SessionOpened() | events.SessionRestored():
                self._sessions[event.session_id] = LiveSession(event.session_id, event.owner, event.at, event.at)
            case events.SessionMeasured():
                if session := self._sessions.get(event.session_id):
                    session.memory, session.processes = event.memory, event.processes
                    session.folder_bytes = event.folder_bytes
            case events.SessionClosed() | events.SessionParked():
                self._sessions.pop(event.session_id, None)
                # their ends are still to come, or were lost on the way: then they must not stay for ever
                for left in [e for e in self._executions.values() if e.session_id == event.session_id]:
                    self._orphans[left.execution_id] = self._executions.pop(left.execution_id)
                while len(self._orphans) > _ORPHANS:
                    self._orphans.popitem(last=False)
            case events.ExecutionStarted():
                self._started(event)
            case events.ExecutionFinished():
                self._executions.pop(event.execution_id, None)
                self._orphans.pop(event.execution_id, None)
                if session := self._sessions.get(event.session_id):
                    session.executions += 1
                    session.last_used = event.at

    def _started(self, event: events.ExecutionStarted) -> None:
        session = self._sessions.get(event.session_id)
        if session is None:
            return  # it ended before: nothing would ever take the execution out again
        session.last_used = event.at
        self._executions[event.execution_id] = LiveExecution(
            session_id=event.session_id,
            execution_id=event.execution_id,
            language=event.language,
            started_at=event.at,
            queued=event.queued,
            code_chars=len(event.code),
            code_sha256=hashlib.sha256(event.code.encode("utf-8", "surrogatepass")).hexdigest(),
            code=event.code if self._keep_code else None,
        )
