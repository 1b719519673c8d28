"""What happened, as plain events, and the bus that carries them to whoever listens (logs, metrics)."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Literal

from executor.results import Language, Status, Violation

_request_id: ContextVar[str] = ContextVar("request_id", default="")
_tool: ContextVar[str] = ContextVar("tool", default="")


@contextmanager
def during(request_id: str, tool: str) -> Iterator[None]:
    """Mark every event made within, also by tasks started within, as part of this tool call."""
    tokens = _request_id.set(request_id), _tool.set(tool)
    try:
        yield
    finally:
        _request_id.reset(tokens[0])
        _tool.reset(tokens[1])


def bare_context() -> Context:
    """A context that marks events as the caller's does, and holds nothing else of it.

    A task keeps the context that it was started in, and whoever keeps the task keeps that: with a caller's own context
    this would be all that the caller's framework has put there, such as the whole request.
    """
    context = Context()
    context.run(_request_id.set, _request_id.get())
    context.run(_tool.set, _tool.get())
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; `at` is in seconds since 1970, `request_id` and `tool` are of the call in which it happened
    (see `during`), empty outside of one."""

    at: float = field(default_factory=time.time)
    request_id: str = field(default_factory=_request_id.get)
    tool: str = field(default_factory=_tool.get)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStarted(Event):
    """The zygote is ready to fork sessions; `seconds` since it was started, `restart` if an earlier one died."""

    seconds: float
    restart: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxProbed(Event):
    """The isolation that this host gives; `layers` maps a layer to why it is on or off."""

    level: str
    layers: dict[str, tuple[bool, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOpened(Event):
    """A session was created, in `seconds`."""

    session_id: str
    owner: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionClosed(Event):
    """A session ended after `age` seconds."""

    session_id: str
    owner: str
    reason: Literal["closed", "expired", "evicted", "failed", "shutdown"]
    age: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotTaken(Event):
    """A snapshot of a session is in the store after `seconds`: `size` bytes in all, `written` of them new; `lost`
    counts what it could not keep."""

    session_id: str
    owner: str
    seconds: float
    size: int
    written: int
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotFailed(Event):
    """A session could not be saved; `detail` says why. It goes on, and is tried again."""

    session_id: str
    owner: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParked(Event):
    """A session's processes ended and its snapshot stays: it was `idle`, made room for others (`room`), the server
    stops (`shutdown`), or its process had `failed`."""

    session_id: str
    owner: str
    reason: Literal["idle", "room", "shutdown", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRestored(Event):
    """A parked session lives again after `seconds`; `lost` counts what did not come back."""

    session_id: str
    owner: str
    seconds: float
    lost: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionMeasured(Event):
    """What a session uses now: bytes of memory and of its folder, and its processes. For whoever asks the backend for
    `stats` from time to time; the newest one of a session counts until it ends."""

    session_id: str
    owner: str
    memory: int
    processes: int
    folder_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted(Event):
    """Code was handed to a worker after waiting `queued` seconds for its session and for a turn among all cells."""

    session_id: str
    owner: str
    execution_id: str
    language: Language
    code: str = field(repr=False)
    queued: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFinished(Event):
    """An execution ended, whatever way; `limits` names the limits that it hit."""

    session_id: str
    owner: str
    execution_id: str
    language: Language
    status: Status
    seconds: float
    return_code: int | None
    stdout_chars: int
    stderr_chars: int
    truncated: bool
    pictures: int
    picture_chars: int
    files: int
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ViolationFound(Event):
    """The policy refused code, or a kernel layer refused an act."""

    session_id: str
    owner: str
    execution_id: str
    language: Language
    violation: Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReplaced(Event):
    """A language's worker died and was replaced; `cause` names the signal, code or limit."""

    session_id: str
    owner: str
    language: Language
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTransferred(Event):
    """A file was taken in, given out, moved or deleted."""

    session_id: str
    owner: str
    action: Literal["put", "get", "delete", "move"]
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagesInstalled(Event):
    """A call for packages ended after `seconds`; `size` is in bytes, of all that the session has installed for that
    language, 0 where nothing was."""

    session_id: str
    owner: str
    language: Literal["python", "javascript"]
    installed: int
    refused: int
    size: int
    seconds: float


QuotaKind = Literal["sessions", "memory", "disk", "concurrent", "calls", "places"]
"""What there was not enough of: the owner's own share, or for `places` live sessions of the whole machine; for
`concurrent` either of the two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRefused(Event):
    """A call was refused because its owner's share, or the machine, was used up."""

    owner: str
    kind: QuotaKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Event):
    """Something of ours failed; `where` is a short stable name, `detail` a sentence."""

    where: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalled(Event):
    """An MCP tool call was answered (published by the Space)."""

    tool: str
    request_id: str
    transport: Literal["sse", "http", "page"]
    outcome: Literal["ok", "error", "cancelled", "fault"]
    owner: str
    identified: bool
    session_id: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionChanged(Event):
    """An MCP connection opened or closed (published by the Space)."""

    transport: Literal["sse", "http"]
    open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRefused(Event):
    """A request was turned away at the door (published by the Space)."""

    reason: Literal["host", "origin", "key", "token", "size", "full"]
    path: str


Subscriber = Callable[[Event], None]


class Bus:
    """Carries events to subscribers, each on a thread of its own behind a bounded queue.

    Publishing never waits and never raises: where a subscriber is too slow its events are dropped and counted in
    `dropped`, where it raises the error is counted in `failed` and the next event is tried.

    A subscriber sees its events in the order of publication and about `linger` seconds late: its thread lets events
    gather that long and takes them in one go, because waking a thread costs more than most deliveries.
    """

    def __init__(self, *, capacity: int = 10_000, linger: float = 0.1) -> None:
        self._capacity = capacity
        self._linger = linger
        self._lock = threading.Lock()
        self._feeds: tuple[_Feed, ...] = ()
        self.dropped = 0
        self.failed = 0

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with every event from now on; returns the function that ends it, delivering what waits."""
        feed = _Feed(subscriber)
        thread = threading.Thread(target=self._deliver, args=(feed,), name="event-subscriber", daemon=True)
        with self._lock:
            self._feeds = (*self._feeds, feed)
        thread.start()

        def unsubscribe() -> None:
            with self._lock:
                self._feeds = tuple(other for other in self._feeds if other is not feed)
            feed.hurry.set()
            feed.waiting.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout=5)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Hand `event` to every subscriber; safe from any thread."""
        for feed in self._feeds:
            if feed.waiting.qsize() < self._capacity:
                feed.waiting.put(event)
            else:
                with self._lock:
                    self.dropped += 1

    def flush(self, timeout: float = 5.0) -> bool:
        """Wait until all that was published so far is delivered; False where `timeout` seconds were not enough.

        Blocks: for tests and for the end of a process, not for an event loop.
        """
        deadline = time.monotonic() + timeout
        for feed in self._feeds:
            done = threading.Event()
            feed.waiting.put(done)
            if not done.wait(max(0.0, deadline - time.monotonic())):
                return False
        return True

    def _deliver(self, feed: _Feed) -> None:
        idle = True
        while True:
            try:
                event = feed.waiting.get(block=idle)
            except queue.Empty:
                idle = True
                continue
            if idle:
                feed.hurry.wait(self._linger)
                idle = False
            if event is None:
                return
            if isinstance(event, threading.Event):
                event.set()
                continue
            try:
                feed.subscriber(event)
            except Exception:
                # the one broad except: a listener must not be able to hurt what it listens to
                with self._lock:
                    self.failed += 1


@dataclass(eq=False, slots=True)
class _Feed:
    """What waits for one subscriber. Among the events, a `threading.Event` marks how far a `flush` waits, and None the
    end; `hurry` ends the gathering."""

    subscriber: Subscriber
    waiting: queue.SimpleQueue[Event | threading.Event | None] = field(default_factory=queue.SimpleQueue)
    hurry: threading.Event = field(default_factory=threading.Event)
