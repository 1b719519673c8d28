"""Connections: how many SSE clients may be there at once, and what happens to one that does not read.

The SDK hands every message to a stream without room for waiting ones, so what a client does not read waits as the
answers of its calls, in memory, without a bound of their number. Here they have one in bytes, and a piece that does not
get through in time ends the connection. Its calls run on, as with every connection that breaks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import resource
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.streams.memory import MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from starlette.types import Message, Send

if TYPE_CHECKING:
    from uvicorn import Config

MAX_WAITING_BYTES = 16 * 2**20
"""What may wait to be read by one client, in memory: fifty of the largest answers."""
SEND_SECONDS = 60.0
"""What one piece may take to leave this process; then its reader has stopped."""
GIVEN_UP_SECONDS = 120
"""After so long without a sign from the other end the kernel lets go of a connection and of what it still held."""
KEEP_ALIVE_SECONDS = 120
"""How long a connection without a request is kept: longer than clients and proxies keep theirs (httpx 5 s, undici 4 s,
nginx 60 s, hyper and Go 90 s). Whoever closes first must not be us: a client that sends at that moment loses its
request, and must not repeat one that may have run code."""
_RESERVED = 512
"""Descriptors that are not for connections: sessions, logs, files, other requests."""

_log = logging.getLogger(__name__)


@dataclass(eq=False, slots=True)
class Connection:
    """One SSE client; `waiting` in bytes of messages that are not sent yet, `dropped` says why it was let go."""

    task: asyncio.Task[Any]
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    waiting: int = 0
    dropped: str = ""

    def drop(self, why: str) -> None:
        """End the connection; its calls run on."""
        if not self.dropped:
            self.dropped = why
            self.scope.cancel()

    def timed(self, send: Send) -> Send:
        """`send`, with an end to its patience."""

        async def send_in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(SEND_SECONDS):
                    await send(message)
            except TimeoutError:
                self.drop(f"it read nothing for {SEND_SECONDS:g} s")
                await anyio.sleep_forever()  # ends with the connection, in a moment

        return send_in_time


class BoundedStream:
    """The stream of messages to one client, as the SDK writes to it, with a bound to what waits in front of it."""

    def __init__(self, stream: MemoryObjectSendStream[SessionMessage], connection: Connection) -> None:
        self._stream = stream
        self._connection = connection

    async def send(self, message: SessionMessage) -> None:
        """Send, or end the connection where too much waits already."""
        size = _weight(message.message.root.model_dump(exclude_none=True))
        if self._connection.waiting and self._connection.waiting + size > MAX_WAITING_BYTES:
            self._connection.drop(f"over {MAX_WAITING_BYTES >> 20} MiB waited to be read")
            raise anyio.BrokenResourceError
        self._connection.waiting += size
        try:
            await self._stream.send(message)
        finally:
            self._connection.waiting -= size

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        await self.aclose()


class Connections:
    """The open ones, at most `limit`, and fewer where this process may not open as many descriptors."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._open: set[Connection] = set()

    def __len__(self) -> int:
        return len(self._open)

    @property
    def limit(self) -> int:
        """How many there may be."""
        return max(1, min(self._limit, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _RESERVED))

    @property
    def full(self) -> bool:
        """Whether one more is too many."""
        return len(self._open) >= self.limit

    @contextlib.asynccontextmanager
    async def one(self) -> AsyncIterator[Connection]:
        """The life of a connection that this task serves; swallows its end where it was dropped."""
        task = asyncio.current_task()
        assert task is not None
        connection = Connection(task)
        self._open.add(connection)
        try:
            with connection.scope:
                yield connection
        finally:
            self._open.discard(connection)
            if connection.dropped:
                _log.warning("SSE connection dropped: %s", connection.dropped)

    async def aclose(self) -> None:
        """End them all."""
        tasks = [connection.task for connection in self._open]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)


def raise_descriptor_limit() -> int:
    """Let this process open as many descriptors as it may; returns how many. The default is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def let_go_of_the_deaf(listeners: Iterable[Any]) -> None:
    """Have the kernel end connections of `listeners` whose other end takes nothing for `GIVEN_UP_SECONDS` (tcp(7),
    TCP_USER_TIMEOUT; connections inherit it): a closed one would else keep what it could not send for ever."""
    for listener in listeners:
        with contextlib.suppress(OSError):  # not TCP
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GIVEN_UP_SECONDS * 1000)


def outlast_clients(config: Config) -> None:
    """Have the server of `config` keep connections between two requests for `KEEP_ALIVE_SECONDS`; for those to come."""
    config.timeout_keep_alive = KEEP_ALIVE_SECONDS


def _weight(value: Any) -> int:
    """About how many bytes of memory `value` takes: of a list of tools that is four times its length as JSON."""
    match value:
        case str():
            return 56 + len(value)
        case dict():
            return 240 + sum(64 + _weight(one) for one in value.values())
        case list() | tuple():
            return 64 + sum(8 + _weight(one) for one in value)
        case _:
            return 32
