"""Session and its table: whose it is, what runs in it, and when it ends."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import Literal

from executor.backend import Finished, SessionRef
from executor.errors import Busy, NoSuchExecution, NoSuchSession
from executor.results import ExecutionResult, HistoryEntry, Language, Output, SessionInfo

EndReason = Literal["closed", "expired", "evicted", "failed", "shutdown"]

MAX_QUEUED = 32
"""Executions that may wait for one session."""

REMEMBERED_ENDS = 1_000
REMEMBERED_RUNS = 32
HISTORY_CODE = 20_000
"""Characters of code that a history entry keeps."""

_WHY: dict[EndReason, str] = {
    "closed": "it was closed",
    "expired": "it was idle for too long",
    "evicted": "it was the one idle longest when another session needed its place",
    "failed": "its process ended unexpectedly",
    "shutdown": "the server was restarted",
}

Owner = tuple[str, str | None]
"""Who may reach a session: the owner, and the conversation where there is one."""


@dataclass(slots=True, kw_only=True)
class Run:
    """One execution of a session, queued, under way or ended."""

    id: str
    language: Language
    code: str = field(repr=False)
    timeout: float
    queued_at: float = field(default_factory=time.monotonic)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    started_at: float | None = None
    displayed: list[Output] = field(default_factory=list)
    detached: bool = False
    """Whether its caller was told that it still runs, and went away: then nothing but an interrupt ends it early."""
    task: asyncio.Task[ExecutionResult] | None = None
    finished: Finished | None = None


@dataclass(slots=True, kw_only=True)
class Session:
    """A live session. Times are wall clock for showing, monotonic (`touched`) for counting."""

    id: str
    owner: str
    conversation: str | None
    ref: SessionRef
    history: deque[HistoryEntry]
    created_at: float = field(default_factory=time.time)
    last_used: float = field(default_factory=time.time)
    touched: float = field(default_factory=time.monotonic)
    executions: int = 0
    running: Run | None = None
    waiting: int = 0
    notices: list[str] = field(default_factory=list)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    runs: OrderedDict[str, Run] = field(default_factory=OrderedDict)

    @property
    def busy(self) -> bool:
        """Whether something runs or waits in it."""
        return self.running is not None or self.waiting > 0

    def touch(self) -> None:
        """Count as used now."""
        self.last_used, self.touched = time.time(), time.monotonic()

    def info(self) -> SessionInfo:
        """As its owner sees it."""
        return SessionInfo(
            id=self.id,
            owner=self.owner,
            created_at=self.created_at,
            last_used=self.last_used,
            executions=self.executions,
            running=self.running.id if self.running else None,
        )

    def add_run(self, run: Run) -> None:
        """Remember an execution. Raises Busy where too many wait already, and behind one that was detached: that may
        take long, and whoever detached it knows how to wait for it."""
        for other in self.runs.values():
            if other.detached and other.finished is None:
                seconds = time.monotonic() - (other.started_at or other.queued_at)
                raise Busy(
                    f"Other code still runs in this session, for {seconds:.0f} s now (execution_id {other.id}). "
                    "Wait for it with get_execution_result, or stop it with interrupt_execution, then run this again; "
                    "or run it in another session."
                )
        if self.waiting >= MAX_QUEUED:
            raise Busy(f"{self.waiting} executions wait in this session already. Wait for them, or interrupt one.")
        self.runs[run.id] = run
        while len(self.runs) > REMEMBERED_RUNS:
            oldest = next(iter(self.runs.values()))
            if oldest.finished is None:
                break
            del self.runs[oldest.id]

    def run(self, execution_id: str | None) -> Run:
        """The execution under that id, without one what runs, or else ran last. Raises NoSuchExecution."""
        if execution_id is None:
            if self.running is not None:
                return self.running
            if not self.runs:
                raise NoSuchExecution("Nothing was run in this session yet.")
            return next(reversed(self.runs.values()))
        if run := self.runs.get(execution_id):
            return run
        raise NoSuchExecution(f"This session knows no execution {execution_id!r}, or no longer.")

    def remember(self, run: Run, result: ExecutionResult, started: float) -> None:
        """Add to the history: without the bytes of pictures, which stay in the session's folder."""
        outputs = tuple(
            replace(output, picture=replace(output.picture, data="")) if output.picture else output
            for output in result.outputs
        )
        code = run.code
        if len(code) > HISTORY_CODE:
            code = f"{code[:HISTORY_CODE]}\n... cut: {len(run.code):,} characters in all ..."
        self.history.append(
            HistoryEntry(code=code, language=run.language, result=replace(result, outputs=outputs), timestamp=started)
        )


class SessionTable:
    """The live sessions, by id and by conversation, and a memory of those that ended.

    Holds at most `capacity` sessions, places being made counted. Plain bookkeeping: it starts and ends nothing.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._live: dict[str, Session] = {}
        self._by_conversation: dict[tuple[str, str], str] = {}
        self._ended: OrderedDict[str, tuple[Owner, EndReason]] = OrderedDict()
        self._untold: OrderedDict[tuple[str, str], EndReason] = OrderedDict()
        self._reserved = 0

    def __len__(self) -> int:
        return len(self._live)

    def all(self) -> list[Session]:
        """Every live session."""
        return list(self._live.values())

    def get(self, session_id: str) -> Session:
        """The session, whoever's it is: for the operator. Raises NoSuchSession."""
        if session := self._live.get(session_id):
            return session
        raise NoSuchSession("That session has ended.")

    def of(self, owner: str, conversation: str | None) -> list[Session]:
        """The sessions that a caller may see, oldest first."""
        return [s for s in self._live.values() if (s.owner, s.conversation) == (owner, conversation)]

    def find(self, session_id: str, owner: str, conversation: str | None) -> Session:
        """The session, if it is the caller's. Raises NoSuchSession, alike for foreign and unknown ones."""
        session = self._live.get(session_id)
        if session and (session.owner, session.conversation) == (owner, conversation):
            return session
        ended = self._ended.get(session_id)
        if ended and ended[0] == (owner, conversation):
            raise NoSuchSession(
                f"Session {session_id} has ended: {_WHY[ended[1]]}. Its variables and files are gone. "
                "Call again without session_id for a new one."
            )
        shown = session_id if len(session_id) <= 64 else session_id[:61] + "..."
        raise NoSuchSession(f"There is no session {shown!r}. Call again without session_id, or create a session.")

    def of_conversation(self, owner: str, conversation: str) -> Session | None:
        """The conversation's own session, if it lives."""
        return self._live.get(self._by_conversation.get((owner, conversation), ""))

    def reserve(self) -> Session | None:
        """Take a place. Returns the idle session that must end for it, if any. Raises Busy where all are at work."""
        victim = None
        if len(self._live) + self._reserved >= self._capacity:
            idle = [s for s in self._live.values() if not s.busy]
            if not idle:
                raise Busy(
                    f"All {self._capacity} sessions are at work. Try again in a few seconds, or close a session."
                )
            victim = min(idle, key=lambda s: s.touched)
        self._reserved += 1
        return victim

    def release(self) -> None:
        """Give a reserved place back."""
        self._reserved -= 1

    def add(self, session: Session, *, own: bool) -> None:
        """Put a session on its reserved place; `own` makes it the conversation's own."""
        self._reserved -= 1
        self._live[session.id] = session
        if own and session.conversation is not None:
            key = session.owner, session.conversation
            self._by_conversation[key] = session.id
            if reason := self._untold.pop(key, None):
                session.notices.append(
                    f"This is a new session: the former one of this conversation has ended ({_WHY[reason]}); "
                    "its variables and files are gone."
                )

    def remove(self, session: Session, reason: EndReason) -> bool:
        """Take a session out, remembering why; False where it was out already."""
        if self._live.pop(session.id, None) is None:
            return False
        self._ended[session.id] = (session.owner, session.conversation), reason
        if len(self._ended) > REMEMBERED_ENDS:
            self._ended.popitem(last=False)
        if session.conversation is not None:
            key = session.owner, session.conversation
            if self._by_conversation.get(key) == session.id:
                del self._by_conversation[key]
                if reason != "closed":
                    self._untold[key] = reason
                    if len(self._untold) > REMEMBERED_ENDS:
                        self._untold.popitem(last=False)
        return True


def new_id() -> str:
    """An id that nobody can guess: 128 bits."""
    return secrets.token_urlsafe(16)
