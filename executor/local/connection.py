"""Connection: the server's end of the line to one leader."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Any

from executor import errors
from executor.backend import ExecutionEvent, Finished
from executor.errors import BackendFailed, NoSuchExecution
from executor.local import wire
from executor.local.report import event_from
from executor.results import ExecutionResult, Language

REMEMBERED = 8
"""Ended executions whose result can still be attached to."""

_ERRORS: dict[str, type[errors.ExecutorError]] = {
    "Busy": errors.Busy,
    "InvalidRequest": errors.InvalidRequest,
    "NoSuchFile": errors.NoSuchFile,
    "FileRefused": errors.FileRefused,
}

Outcome = tuple[dict[str, Any], bytes | None]


class Execution:
    """One execution as the server has heard of it: its events so far, for any number of followers."""

    def __init__(self, execution_id: str, language: Language) -> None:
        self.id = execution_id
        self.language = language
        self._events: list[ExecutionEvent] = []
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def finished(self) -> bool:
        """Whether its last event is here."""
        return bool(self._events) and isinstance(self._events[-1], Finished)

    def add(self, event: ExecutionEvent) -> None:
        """Take an event and wake whoever follows."""
        if self.finished:
            return
        self._events.append(event)
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()

    def shrink(self) -> None:
        """Forget everything but the end, which holds it all; who follows already goes on with what there was."""
        self._events = self._events[-1:]

    async def follow(self) -> AsyncIterator[ExecutionEvent]:
        """The events from the first one kept on, up to `Finished`."""
        events, position = self._events, 0
        while True:
            while position < len(events):
                event = events[position]
                position += 1
                yield event
                if isinstance(event, Finished):
                    return
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)


class Connection(asyncio.Protocol):
    """Speaks with one leader. What it sends that is no proper frame ends the connection, and with it the session."""

    def __init__(self) -> None:
        self.session_id = ""
        self.on_saving: Callable[[], None] | None = None
        """Called when the interpreters have been asked for their state, so that cells may come again."""
        self._on_usage: Callable[[int], None] = lambda _: None
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.why_lost = "its process ended"
        self._transport: asyncio.Transport | None = None
        self._decoder = wire.Decoder()
        self._requests: dict[int, asyncio.Future[Outcome]] = {}
        self._chunks: dict[int, bytes] = {}
        self._next_request = 1
        self._executions: OrderedDict[str, Execution] = OrderedDict()
        self._writable = asyncio.Event()
        self._writable.set()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._take(frame)
        except wire.FrameError as error:
            self.why_lost = f"its leader sent something wrong ({error})"
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(None)
        self._writable.set()
        failure = BackendFailed(f"The session is gone: {self.why_lost}.")
        if not self.ready.done():
            self.ready.set_exception(failure)
        for request in self._requests.values():
            if not request.done():
                request.set_exception(failure)
        self._requests.clear()
        for execution in self._executions.values():
            execution.add(Finished(self._lost_result(execution), replaced=self.why_lost))

    # For the backend

    def adopt(self, session_id: str, on_usage: Callable[[int], None]) -> None:
        """Be the session of that id from now on; `on_usage` hears how many bytes of memory it uses."""
        self.session_id = session_id
        self._on_usage = on_usage

    def relieve(self, budget: int) -> None:
        """Tell the leader that this session must give way, as all together are over `budget` bytes."""
        self._send(wire.encode({"op": "relieve", "budget": budget}))

    def hang_up(self) -> None:
        """Close our end; the leader takes that as the order to end the session."""
        if self._transport is not None:
            self._transport.abort()

    def close_request(self) -> None:
        """Ask the leader to end the session; `lost` is done when it has."""
        self._send(wire.encode({"op": "close"}))

    def start(self, execution_id: str, language: Language, code: str, timeout: float) -> None:
        """Hand an execution over. Raises BackendFailed where the session is gone."""
        self._must_live()
        for former in self._executions.values():
            if former.finished:
                former.shrink()
        while len(self._executions) >= REMEMBERED:
            oldest = next(iter(self._executions.values()))
            if not oldest.finished:
                break
            del self._executions[oldest.id]
        self._executions[execution_id] = Execution(execution_id, language)
        self._send(
            wire.encode({"op": "execute", "id": execution_id, "language": language, "code": code, "timeout": timeout})
        )

    def execution(self, execution_id: str) -> Execution:
        """The execution under that id. Raises NoSuchExecution."""
        if execution := self._executions.get(execution_id):
            return execution
        raise NoSuchExecution(f"The session knows no execution {execution_id!r}, or no longer.")

    def interrupt(self, execution_id: str) -> None:
        """Ask for a stop; nothing happens where that execution is not under way."""
        if (execution := self._executions.get(execution_id)) and not execution.finished:
            self._send(wire.encode({"op": "interrupt", "id": execution_id}))

    async def request(self, op: str, *, deadline: float, **arguments: Any) -> Outcome:
        """The reply, and the chunk that came with it. Raises the error that the leader names, or BackendFailed."""
        return await self.answer(self.begin(op, **arguments), f"`{op}`", deadline=deadline)

    def begin(self, op: str, **arguments: Any) -> int:
        """Begin what may hold something in the leader, whatever becomes of the answer: its number, under which that is
        asked for, and released. Raises BackendFailed."""
        self._must_live()
        number = self._next_request
        self._next_request += 1
        frame = wire.encode({"op": op, "request": number, **arguments})
        answer = self._requests[number] = asyncio.get_running_loop().create_future()
        # whoever gives up does not ask for it any more; that is no fault
        answer.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._send(frame)
        return number

    async def answer(self, number: int, what: str, *, deadline: float) -> Outcome:
        """The outcome of what was begun, `what` in a sentence. Raises as `request` does."""
        self._must_live()
        try:
            async with asyncio.timeout(deadline):
                return await self._requests[number]
        except TimeoutError:
            raise BackendFailed(f"The session did not answer {what} within {deadline:g} s.") from None
        finally:
            self._requests.pop(number, None)
            self._chunks.pop(number, None)

    async def send_piece(self, number: int, data: bytes, *, deadline: float) -> None:
        """Send a piece of at most `wire.CHUNK` bytes, not empty, as soon as there is room for it. Raises what the
        leader says where it takes no more, or BackendFailed."""
        try:
            async with asyncio.timeout(deadline):
                await asyncio.sleep(0)  # a source that never waits must not keep the loop to itself
                await self._writable.wait()
        except TimeoutError:
            raise BackendFailed(f"The session took nothing more for {deadline:g} s.") from None
        self._must_live()
        if self._requests[number].done():
            self._requests[number].result()
        self._send(wire.encode_chunk(number, data))

    def finish(self, number: int) -> None:
        """Say that all pieces are sent. Raises BackendFailed."""
        self._must_live()
        self._send(wire.encode_chunk(number, b""))

    def forget(self, number: int) -> None:
        """Nobody waits for that answer any more. Idempotent."""
        self._requests.pop(number, None)

    # Inside

    def _must_live(self) -> None:
        if self._transport is None or self.lost.done() or self._transport.is_closing():
            raise BackendFailed(f"The session is gone: {self.why_lost}.")

    def _send(self, frame: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def _take(self, frame: dict[str, Any] | wire.Chunk) -> None:
        if isinstance(frame, wire.Chunk):
            if frame.channel in self._requests:
                self._chunks[frame.channel] = frame.data
            return
        if "reply" in frame:
            self._reply(frame)
            return
        match frame.get("event"):
            case "ready":
                if not self.ready.done():
                    self.ready.set_result(None)
            case "failed":
                self.why_lost = str(frame.get("message", ""))[:2000]
            case "closed":
                self.why_lost = "it was closed"
            case "saving":
                if self.on_saving is not None:
                    self.on_saving()
            case "usage":
                memory = frame.get("memory")
                if isinstance(memory, int):
                    self._on_usage(memory)
            case _:
                execution = self._executions.get(str(frame.get("id")))
                if execution is None:
                    return
                execution.add(event_from(frame, session_id=self.session_id, language=execution.language))

    def _reply(self, frame: dict[str, Any]) -> None:
        number = frame["reply"]
        if not isinstance(number, int):
            raise wire.FrameError("`reply` is no number")
        future = self._requests.get(number)
        if future is None or future.done():
            return
        if "error" in frame:
            kind = _ERRORS.get(str(frame["error"]), BackendFailed)
            future.set_exception(kind(str(frame.get("message", ""))[:2000]))
        else:
            future.set_result((frame, self._chunks.pop(number, None)))

    def _lost_result(self, execution: Execution) -> ExecutionResult:
        return ExecutionResult(
            status="lost",
            session_id=self.session_id,
            execution_id=execution.id,
            language=execution.language,
            notices=(f"The session's processes are gone: {self.why_lost}.",),
        )


async def connect(sock: socket.socket) -> Connection:
    """A Connection over our end of a socket pair."""
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    connection = Connection()
    # nobody may be waiting for these when they fail; that is no fault
    connection.ready.add_done_callback(lambda future: future.cancelled() or future.exception())
    with contextlib.suppress(OSError):
        await loop.create_unix_connection(lambda: connection, sock=sock)
    return connection
