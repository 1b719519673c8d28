"""What happened, as plain events, and the bus that carries them to whoever listens (logs, metrics)."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from executor.results import Language, Status, Violation


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events; `at` is in seconds since 1970."""

    at: float = field(default_factory=time.time)


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
class ExecutionStarted(Event):
    """Code was handed to a worker after waiting `queued` seconds for its session."""

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
class Fault(Event):
    """Something of ours failed; `where` is a short stable name, `detail` a sentence."""

    where: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalled(Event):
    """An MCP tool call was answered (published by the Space)."""

    tool: str
    transport: Literal["sse", "http", "page"]
    outcome: Literal["ok", "error", "cancelled", "fault"]
    owner: str
    identified: bool
    request_id: str
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

    reason: Literal["host", "origin", "key", "token", "size"]
    path: str


Subscriber = Callable[[Event], None]


class Bus:
    """Carries events to subscribers, each on a thread of its own behind a bounded queue.

    Publishing never waits and never raises: where a subscriber is too slow its events are dropped and counted in
    `dropped`, where it raises the error goes to `failed` and the next event is tried.
    """

    def __init__(self, *, capacity: int = 10_000) -> None:
        self._capacity = capacity
        self._feeds: dict[int, tuple[queue.Queue[Event | None], threading.Thread]] = {}
        self._next = 0
        self.dropped = 0
        self.failed = 0

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Call `subscriber` with every event from now on; returns the function that ends it, delivering what waits."""
        feed: queue.Queue[Event | None] = queue.Queue(self._capacity)
        thread = threading.Thread(target=self._deliver, args=(feed, subscriber), name="event-subscriber", daemon=True)
        key, self._next = self._next, self._next + 1
        self._feeds[key] = feed, thread
        thread.start()

        def unsubscribe() -> None:
            if self._feeds.pop(key, None) is not None:
                feed.put(None)
                thread.join(timeout=5)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Hand `event` to every subscriber; safe from any thread."""
        for feed, _ in tuple(self._feeds.values()):
            try:
                feed.put_nowait(event)
            except queue.Full:
                self.dropped += 1

    def _deliver(self, feed: queue.Queue[Event | None], subscriber: Subscriber) -> None:
        while (event := feed.get()) is not None:
            try:
                subscriber(event)
            except Exception:
                # the one broad except: a listener must not be able to hurt what it listens to
                self.failed += 1
