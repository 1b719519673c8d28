"""Session and its table: whose it is, what runs in it, and when it ends."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field, replace
from typing import Literal

from executor.backend import Finished, SessionRef
from executor.errors import BackendFailed, Busy, NoSuchExecution, NoSuchSession
from executor.packages.report import Ecosystem
from executor.packages.shelf import Shelf
from executor.results import ExecutionResult, HistoryEntry, Language, LanguageState, Output, SessionInfo
from executor.settings import Settings

EndReason = Literal["closed", "expired", "evicted", "failed", "shutdown"]
Untold = EndReason | Literal["damaged"]

MAX_QUEUED = 32
"""Executions that may wait for one session."""

REMEMBERED_ENDS = 1_000
REMEMBERED_RUNS = 32
HISTORY_CODE = 20_000
"""Characters of code that a history entry keeps."""

_WHY: dict[Untold, str] = {
    "closed": "it was closed",
    "expired": "nobody used it for longer than sessions are kept",
    "evicted": "it was the one idle longest when another session needed its place",
    "failed": "its process ended unexpectedly",
    "shutdown": "the server was restarted",
    "damaged": "what was saved of it was damaged while the server was down",
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
    admitted: bool = False
    """Whether its turn has come, among all sessions' executions: from then on it can be interrupted, before it is taken
    out of the queue."""
    displayed: list[Output] = field(default_factory=list)
    detached: bool = False
    """Whether its caller was told that it still runs, and went away: then nothing but an interrupt ends it early."""
    task: asyncio.Task[ExecutionResult] | None = None
    finished: Finished | None = None
    told: bool = False
    """Whether somebody was given its end."""


@dataclass(slots=True, kw_only=True)
class SnapshotState:
    """How a session stands to its snapshot. `dirty_since` and `changed_at`: first and last change that is not in it."""

    taken_at: float | None = None
    bytes: int = 0
    executions: int = 0
    states: dict[Language, LanguageState] = field(default_factory=dict)
    dirty_since: float | None = None
    changed_at: float = 0.0
    changes: int = 0
    """Changes so far: a snapshot holds those that were there when the interpreters were asked."""
    retry_at: float = 0.0
    failures: int = 0
    """Times in a row that it could not be saved."""
    clean: bool = True
    """Whether nothing came after it: it was taken when the session was parked."""
    says_parked: bool = False
    """Whether it says that itself, to whoever finds it."""
    blank: bool = False
    """Whether it only says that the session exists: nothing of it has been saved yet."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


@dataclass(slots=True, kw_only=True)
class Session:
    """A session, live or parked. Times are wall clock for showing, monotonic (`touched`) for counting."""

    id: str
    owner: str
    conversation: str | None
    ref: SessionRef | None
    """What the backend knows it by while it lives; None while it is parked."""
    history: deque[HistoryEntry]
    own: bool = False
    """Whether it is its conversation's own."""
    created_at: float = field(default_factory=time.time)
    last_used: float = field(default_factory=time.time)
    touched: float = field(default_factory=time.monotonic)
    executions: int = 0
    running: Run | None = None
    waiting: int = 0
    using: int = 0
    """Calls that need it live, other than executions."""
    life: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by whoever parks it, wakes it or ends it."""
    yielding: bool = False
    """Whether who holds `life` only saves it, and lets it live where it comes into use meanwhile."""
    leaving: asyncio.Task[None] | None = None
    """The end of the processes of its last life, of which a next one is independent."""
    ended: bool = False
    numbers: dict[Language, int] = field(default_factory=dict)
    """Cells that ran, by language: what the last one of each was called."""
    packages: dict[Ecosystem, Shelf] = field(default_factory=dict)
    """What was installed into it, by language."""
    snapshot: SnapshotState = field(default_factory=SnapshotState)
    notices: list[str] = field(default_factory=list)
    """What its next result must say, even if that comes after another restart."""
    returned: list[str] = field(default_factory=list)
    """What its next result says of its last return; said anew with each."""
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    runs: OrderedDict[str, Run] = field(default_factory=OrderedDict)

    @property
    def busy(self) -> bool:
        """Whether something runs or waits in it, or is about to."""
        return self.running is not None or self.waiting > 0 or self.using > 0

    @property
    def live_ref(self) -> SessionRef:
        """What the backend knows it by. Raises BackendFailed where it does not live, which callers see to before."""
        if self.ref is None:
            raise BackendFailed("The session is parked; call again to wake it.")
        return self.ref

    def what_is_left(self) -> str:
        """Where its processes have just died: what its next call finds."""
        if self.snapshot.taken_at is None or self.snapshot.blank:
            return "The variables and files of this session are lost. Nothing is run again: run the cells again."
        when = time.strftime("%H:%M:%S UTC", time.gmtime(self.snapshot.taken_at))
        return (
            f"The next call finds the session as it was at {when}; what this code did is unknown. Nothing is run again."
        )

    def change(self) -> None:
        """Its variables, files or history may differ from its snapshot now."""
        now = time.monotonic()
        snapshot = self.snapshot
        snapshot.changes += 1
        snapshot.changed_at = now
        snapshot.clean = False
        if snapshot.dirty_since is None:
            snapshot.dirty_since = now

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
            state="live" if self.ref is not None else "parked",
            snapshot_at=None if self.snapshot.blank else self.snapshot.taken_at,
            snapshot_bytes=self.snapshot.bytes,
            names=tuple(name for state in self.snapshot.states.values() for name in state.names),
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

    def lie_down(self) -> None:
        """Its processes are gone: let go of what its snapshot has, too, and of results that were fetched.

        The newest one stays, for a caller whom its answer did not reach; parked sessions may be many.
        """
        self.history.clear()
        newest = next(reversed(self.runs), None)
        for run in tuple(self.runs.values()):
            if run.told and run.finished is not None and run.id != newest:
                del self.runs[run.id]

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

    def current(self) -> Run | None:
        """The execution that runs, or where none does yet, the first that waits for its turn."""
        return self.running or next((run for run in self.runs.values() if run.finished is None), None)

    def remember(self, run: Run, result: ExecutionResult, started: float) -> None:
        """Add to the history: without the bytes of pictures, which stay in the session's folder."""
        outputs = tuple(
            replace(output, picture=replace(output.picture, data="")) if output.picture else output
            for output in result.outputs
        )
        self.history.append(
            HistoryEntry(
                code=run.code[:HISTORY_CODE],
                language=run.language,
                result=replace(result, outputs=outputs),
                timestamp=started,
                whole_chars=len(run.code) if len(run.code) > HISTORY_CODE else 0,
            )
        )


class SessionTable:
    """The sessions, live and parked, by id and by conversation, and a memory of those that ended.

    Plain bookkeeping: it starts, parks and ends nothing.
    """

    def __init__(self) -> None:
        self._known: dict[str, Session] = {}
        self._by_owner: dict[Owner, dict[str, Session]] = {}
        self._by_conversation: dict[tuple[str, str], str] = {}
        self._ended: OrderedDict[str, tuple[Owner, Untold]] = OrderedDict()
        self._untold: OrderedDict[tuple[str, str], Untold] = OrderedDict()
        self._count: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, session: Session) -> bool:
        return self._known.get(session.id) is session

    def all(self) -> list[Session]:
        """Every session."""
        return list(self._known.values())

    def live(self) -> list[Session]:
        """Every session that has processes."""
        return [session for session in self._known.values() if session.ref is not None]

    def count(self, owner: str) -> int:
        """How many sessions the owner has, live and parked, in all conversations."""
        return self._count[owner]

    def get(self, session_id: str) -> Session:
        """The session, whoever's it is: for the operator. Raises NoSuchSession."""
        if session := self._known.get(session_id):
            return session
        raise NoSuchSession("That session has ended.")

    def of(self, owner: str, conversation: str | None) -> list[Session]:
        """The sessions that a caller may see, oldest first."""
        return sorted(self._by_owner.get((owner, conversation), {}).values(), key=lambda session: session.created_at)

    def find(self, session_id: str, owner: str, conversation: str | None) -> Session:
        """The session, if it is the caller's. Raises NoSuchSession, alike for foreign and unknown ones."""
        session = self._known.get(session_id)
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
        """The conversation's own session, live or parked."""
        return self._known.get(self._by_conversation.get((owner, conversation), ""))

    def add(self, session: Session) -> None:
        """Take a session in."""
        self._known[session.id] = session
        self._by_owner.setdefault((session.owner, session.conversation), {})[session.id] = session
        self._count[session.owner] += 1
        if session.own and session.conversation is not None:
            key = session.owner, session.conversation
            if present := self._known.get(self._by_conversation.get(key, "")):
                if present.ref is not None or present.last_used > session.last_used:
                    # it was made when this one could not be found, and may be at work
                    session.own = False
                    present.notices.append(
                        f"A former session of this conversation has been found by now: session_id {session.id}. "
                        "Calls without session_id go on in this one."
                    )
                    return
                present.own = False
            self._by_conversation[key] = session.id
            if reason := self._untold.pop(key, None):
                session.notices.append(
                    f"This is a new session: the former one of this conversation has ended ({_WHY[reason]}); "
                    "its variables and files are gone."
                )

    def remove(self, session: Session, reason: EndReason) -> bool:
        """Take a session out, remembering why; False where it was out already."""
        if self._known.pop(session.id, None) is None:
            return False
        session.ended = True
        owner: Owner = session.owner, session.conversation
        self._by_owner[owner].pop(session.id, None)
        if not self._by_owner[owner]:
            del self._by_owner[owner]
        self._count[session.owner] -= 1
        if not self._count[session.owner]:
            del self._count[session.owner]
        own = False
        if session.conversation is not None:
            key = session.owner, session.conversation
            if own := self._by_conversation.get(key) == session.id:
                del self._by_conversation[key]
        self._end(session.id, owner, reason, own=own)
        return True

    def mark_ruined(self, session: Session) -> None:
        """Take note of a session of a former server of which nothing can be read, so that its owner is told.

        Once the others are here: where its conversation has a new one by now, that was told already.
        """
        owner: Owner = session.owner, session.conversation
        new = session.conversation is not None and self.of_conversation(session.owner, session.conversation)
        self._end(session.id, owner, "damaged", own=session.own and not new)

    def _end(self, session_id: str, owner: Owner, reason: Untold, *, own: bool) -> None:
        self._ended[session_id] = owner, reason
        if len(self._ended) > REMEMBERED_ENDS:
            self._ended.popitem(last=False)
        if own and owner[1] is not None and reason != "closed":
            self._untold[owner[0], owner[1]] = reason
            if len(self._untold) > REMEMBERED_ENDS:
                self._untold.popitem(last=False)


def history_of(settings: Settings) -> deque[HistoryEntry]:
    """An empty history, bounded as the settings say."""
    return deque(maxlen=settings.history_entries)


def new_id() -> str:
    """An id that nobody can guess: 128 bits."""
    return secrets.token_urlsafe(16)
