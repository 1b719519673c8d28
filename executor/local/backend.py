"""LocalBackend: sessions as forks of a zygote on this machine; the embedded default."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from executor.backend import Activity, ExecutionEvent, Printed, SessionRef, SessionSpec, SessionStats, Tree
from executor.errors import BackendFailed, FileRefused
from executor.events import Event, Fault
from executor.local import wire
from executor.local.budget import Budget
from executor.local.connection import Connection
from executor.local.journal import Journal
from executor.local.launcher import Launched, Launcher
from executor.local.paths import SESSIONS
from executor.local.removal import remove_tree
from executor.local.report import activity_from, file_from, state_from, stats_from, tree_from
from executor.packages.report import Ecosystem
from executor.results import FileInfo, Language, LanguageState
from executor.sandbox import identity
from executor.sandbox.namespaces import VIEW
from executor.sandbox.paths import must_be_hidden
from executor.sandbox.report import SandboxReport
from executor.settings import Settings

REQUEST_DEADLINE = 30.0
CLOSE_DEADLINE = 5.0
SAVE_DEADLINE = 150.0
"""A leader's own deadlines, for writing and trying the state of three languages, end before that."""

RELIEF_DEADLINE = 2.0
"""Seconds in which idle sessions must have made room for memory."""

QUICK_LISTING = 20_000
"""Bytes of a listing up to which it is read on the event loop, in about 1 ms; more goes to a thread."""

PATH_BYTES = 4 * 2**20
"""Bytes of paths that are asked for in one frame."""


class LocalBackend:
    """Implements `executor.backend.Backend`. Making one starts the zygote, so that it loads while others import."""

    def __init__(self, settings: Settings) -> None:
        # where a session shares our user, its code must not look into us
        identity.hide()
        self._settings = settings
        if settings.state_dir:
            must_be_hidden([settings.state_dir], "STATE_DIR")
        if settings.cell_journal:
            # found wanting here and not in the zygote, which stands in the root folder and cannot say why
            path = os.path.abspath(os.path.expanduser(settings.cell_journal))
            must_be_hidden([os.path.dirname(path)], "CELL_JOURNAL")
            Journal.open(path).close()
            settings = dataclasses.replace(settings, cell_journal=path)
        self._state = settings.work_path()
        self._temporary = not settings.work_dir
        self._sessions = self._state / SESSIONS
        self._prepare_state()
        self._launcher = Launcher(settings, self._state, self._sessions)
        self._publish: Callable[[Event], None] = lambda _: None
        self._launched: dict[SessionRef, Launched] = {}
        # taken away already, but their processes are still there
        self._ending: dict[SessionRef, Launched] = {}
        self._budget = Budget(settings.total_memory_mb << 20)
        self._make_room: Callable[[], Awaitable[bool]] = _no_room
        self._relieving: asyncio.Task[None] | None = None
        self._closed = False

    def _prepare_state(self) -> None:
        # a session of its own uid must get through to its folder, but see no other's name
        self._state.chmod(0o711)
        for view in self._state.glob(f"{VIEW}*"):
            if not Path("/proc", view.name.removeprefix(VIEW)).exists():
                with contextlib.suppress(OSError):
                    view.rmdir()
        # a server before us that was killed may have leaders that end only now: theirs is out of the way, and goes
        former = self._sessions.with_name(f"{SESSIONS}.former")
        remove_tree(str(former))
        with contextlib.suppress(FileNotFoundError):
            self._sessions.rename(former)
            remove_tree(str(former))
        self._sessions.mkdir(mode=0o711, parents=True)

    # Backend

    @property
    def scratch(self) -> Path:
        """Our own folder."""
        return self._state

    async def open(self, publish: Callable[[Event], None], make_room: Callable[[], Awaitable[bool]]) -> SandboxReport:
        """Wait until the zygote is ready."""
        self._publish = publish
        self._make_room = make_room
        return await self._launcher.open(publish)

    async def aclose(self) -> None:
        """End every session and the zygote."""
        if self._closed:
            return
        self._closed = True
        if self._relieving is not None:
            self._relieving.cancel()
        for ref in tuple(self._launched):
            self._take_away(ref)
        await self._end_now()
        await self._launcher.aclose()
        await asyncio.to_thread(shutil.rmtree, self._state if self._temporary else self._sessions, True)

    async def create(self, spec: SessionSpec) -> SessionRef:
        """Fork a session, and wait until its Python is ready."""
        launched = await self._launcher.launch()
        ref = SessionRef(spec.id, launched.number)
        launched.connection.adopt(spec.id, partial(self._weigh, ref))
        self._launched[ref] = launched
        return ref

    def close(self, ref: SessionRef, *, linger: float = 0.0) -> Coroutine[Any, Any, None]:
        """Let go of a session; what is given ends its processes."""
        self._take_away(ref)
        return self._end(ref, linger)

    def alive(self, ref: SessionRef) -> bool:
        """Whether the leader still answers to us."""
        launched = self._launched.get(ref)
        return launched is not None and not launched.connection.lost.done()

    async def stats(self, ref: SessionRef) -> SessionStats:
        """Ask the leader."""
        reply, _ = await self._connection(ref).request("stats", deadline=REQUEST_DEADLINE)
        return stats_from(reply)

    async def activity(self, ref: SessionRef) -> Activity:
        """Ask the leader."""
        reply, _ = await self._connection(ref).request("activity", deadline=REQUEST_DEADLINE)
        return activity_from(reply)

    async def start(self, ref: SessionRef, language: Language, code: str, execution_id: str, timeout: float) -> None:
        """Send the code."""
        self._connection(ref).start(execution_id, language, code, timeout)

    def attach(self, ref: SessionRef, execution_id: str) -> AsyncIterator[ExecutionEvent]:
        """Follow an execution."""
        return self._connection(ref).execution(execution_id).follow()

    async def interrupt(self, ref: SessionRef, execution_id: str) -> None:
        """Ask for a stop."""
        self._connection(ref).interrupt(execution_id)

    async def printed(self, ref: SessionRef, execution_id: str) -> Printed:
        """Ask the leader."""
        reply, _ = await self._connection(ref).request("printed", deadline=REQUEST_DEADLINE, id=execution_id)
        return Printed(stdout=str(reply.get("stdout", "")), stderr=str(reply.get("stderr", "")))

    async def put_file(self, ref: SessionRef, path: str, chunks: AsyncIterable[bytes]) -> FileInfo:
        """Stream a file in, chunk by chunk."""
        return file_from((await self._send(ref, chunks, "create", path=path)).get("file"))

    async def install(self, ref: SessionRef, language: Ecosystem, parcel: AsyncIterable[bytes]) -> None:
        """Stream a parcel in, chunk by chunk."""
        await self._send(ref, parcel, "install", language=language)

    async def save(self, ref: SessionRef, *, limit: int, begun: Callable[[], None], final: bool) -> list[LanguageState]:
        """Ask the leader, which answers when every state has been written and tried."""
        connection = self._connection(ref)
        connection.on_saving = begun
        try:
            reply, _ = await connection.request("save", deadline=SAVE_DEADLINE, limit=limit, final=final)
        finally:
            connection.on_saving = None
        return [state_from(data) for data in reply.get("states", ())]

    async def restore(
        self, ref: SessionRef, languages: Sequence[Language], numbers: Mapping[Language, int]
    ) -> list[LanguageState]:
        """Ask the leader, which answers when Python has taken over its state."""
        asked = {"languages": list(languages), "numbers": dict(numbers)}
        reply, _ = await self._connection(ref).request("restore", deadline=SAVE_DEADLINE, **asked)
        return [state_from(data) for data in reply.get("states", ())]

    async def tree(self, ref: SessionRef) -> Tree:
        """Read the leader's listing."""
        listing = bytearray()
        async for piece in self._pieces(ref, "tree"):
            listing += piece
        if len(listing) <= QUICK_LISTING:
            return tree_from(bytes(listing))
        return await asyncio.to_thread(tree_from, bytes(listing))

    async def pack(self, ref: SessionRef, paths: Sequence[str]) -> AsyncIterator[bytes]:
        """Read parcels of the leader's, as many paths at a time as fit a frame: one after the other they are one."""
        for some in _batches(paths):
            async for piece in self._pieces(ref, "pack", paths=some):
                yield piece

    async def unpack(self, ref: SessionRef, parcel: AsyncIterable[bytes]) -> None:
        """Stream a parcel in, chunk by chunk."""
        await self._send(ref, parcel, "unpack")

    async def get_file(
        self, ref: SessionRef, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Stream a file out, one requested chunk after the other."""
        connection = self._connection(ref)
        handle = connection.begin("open", path=path)
        try:
            reply, _ = await connection.answer(handle, "`open`", deadline=REQUEST_DEADLINE)
            size = int(reply["size"])
            if size > self._settings.max_upload_mb << 20:
                raise FileRefused(
                    f"{path!r} has {size:,} bytes; at most {self._settings.max_upload_mb} MiB can be given out."
                )
            end = size if length is None else min(size, offset + length)
            while offset < end:
                _, data = await connection.request(
                    "read", deadline=REQUEST_DEADLINE, handle=handle, offset=offset, size=min(wire.CHUNK, end - offset)
                )
                if not data:
                    return  # it was cut while we read
                offset += len(data)
                yield data
        finally:
            connection.forget(handle)
            await self._release(connection, handle)

    async def file_info(self, ref: SessionRef, path: str) -> FileInfo:
        """Ask the leader."""
        reply, _ = await self._connection(ref).request("info", deadline=REQUEST_DEADLINE, path=path)
        return file_from(reply.get("file"))

    async def list_files(self, ref: SessionRef) -> list[FileInfo]:
        """Ask the leader."""
        reply, _ = await self._connection(ref).request("list", deadline=REQUEST_DEADLINE)
        return [file_from(data) for data in reply.get("files", ())]

    async def move_file(self, ref: SessionRef, path: str, target: str) -> FileInfo:
        """Ask the leader."""
        reply, _ = await self._connection(ref).request("move", deadline=REQUEST_DEADLINE, path=path, target=target)
        return file_from(reply.get("file"))

    async def delete_file(self, ref: SessionRef, path: str) -> None:
        """Ask the leader."""
        await self._connection(ref).request("delete", deadline=REQUEST_DEADLINE, path=path)

    # Inside

    def _connection(self, ref: SessionRef) -> Connection:
        if launched := self._launched.get(ref):
            return launched.connection
        raise BackendFailed("The session is gone.")

    async def _pieces(self, ref: SessionRef, op: str, **arguments: object) -> AsyncIterator[bytes]:
        """What request `op` gives, piece by piece; whatever fails, the leader lets go of it."""
        connection = self._connection(ref)
        handle = connection.begin(op, **arguments)
        more = True
        try:
            reply, data = await connection.answer(handle, f"`{op}`", deadline=REQUEST_DEADLINE)
            more = reply.get("more") is True
            if data:
                yield data
            while more:
                reply, data = await connection.request("read", deadline=REQUEST_DEADLINE, handle=handle)
                more = reply.get("more") is True
                if data:
                    yield data
        finally:
            if more:
                connection.forget(handle)
                await self._release(connection, handle)

    async def _send(
        self, ref: SessionRef, chunks: AsyncIterable[bytes], op: str, **arguments: object
    ) -> dict[str, Any]:
        """The reply to the end of what request `op` begins; whatever fails, the leader lets go of it."""
        connection = self._connection(ref)
        number = connection.begin(op, **arguments)
        try:
            async for data in chunks:
                for start in range(0, len(data), wire.CHUNK):
                    piece = bytes(data[start : start + wire.CHUNK])
                    await connection.send_piece(number, piece, deadline=REQUEST_DEADLINE)
            connection.finish(number)
            reply, _ = await connection.answer(number, f"`{op}`", deadline=REQUEST_DEADLINE)
            return reply
        except BaseException:
            connection.forget(number)
            await self._release(connection, number)
            raise

    async def _release(self, connection: Connection, handle: int) -> None:
        with contextlib.suppress(BackendFailed):
            # shielded: also a cancelled transfer must let go of its file
            await asyncio.shield(connection.request("release", deadline=REQUEST_DEADLINE, handle=handle))

    def _take_away(self, ref: SessionRef) -> None:
        if (launched := self._launched.pop(ref, None)) is not None:
            self._ending[ref] = launched

    async def _end_now(self) -> None:
        """End all that linger, and wait for it."""
        await asyncio.gather(*(self._end(ref, 0.0) for ref in tuple(self._ending)))

    async def _end(self, ref: SessionRef, linger: float) -> None:
        launched = self._ending.get(ref)
        if launched is None:
            return
        connection = launched.connection
        try:
            if linger:
                await asyncio.wait((connection.lost,), timeout=linger)
            connection.close_request()
            async with asyncio.timeout(CLOSE_DEADLINE):
                await asyncio.shield(connection.lost)
        except TimeoutError:
            self._launcher.kill(launched.number)
            self._publish(Fault(where="close", detail=f"a session did not close within {CLOSE_DEADLINE:g} s"))
        finally:
            connection.hang_up()
            self._ending.pop(ref, None)
            self._budget.forget(ref)

    def _weigh(self, ref: SessionRef, memory: int) -> None:
        """A leader told what its session uses: over the budget of all together, who is idle makes room, and where that
        is not enough, the largest must give way."""
        if ref not in self._launched and ref not in self._ending:
            return
        self._budget.note(ref, memory)
        if self._budget.excess and (self._relieving is None or self._relieving.done()):
            self._relieving = asyncio.create_task(self._relieve(), name="memory-relief")

    async def _relieve(self) -> None:
        until = time.monotonic() + RELIEF_DEADLINE
        try:
            async with asyncio.timeout(RELIEF_DEADLINE):
                # what makes room still holds its memory when that is said
                while self._budget.excess and (self._ending or await self._make_room()):
                    # shielded: however little time is left, ends have their own deadline, and are seen through to it
                    await asyncio.shield(self._end_now())
        except TimeoutError:
            pass
        except Exception as error:
            # whatever is wrong with one session, the budget holds
            self._publish(Fault(where="memory", detail=f"idle sessions could not make room: {error!r}"))
        while self._budget.excess and time.monotonic() < until + RELIEF_DEADLINE:
            offender = self._budget.largest()
            if offender is None:
                return
            if (launched := self._launched.get(offender)) is not None:
                launched.connection.relieve(self._budget.limit)


def _batches(paths: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    room = PATH_BYTES
    for path in paths:
        takes = 12 * len(path) + 3  # the most that it may get in JSON
        if batch and takes > room:
            yield batch
            batch, room = [], PATH_BYTES
        batch.append(path)
        room -= takes
    if batch:
        yield batch


async def _no_room() -> bool:
    return False
