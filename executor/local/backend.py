"""LocalBackend: sessions as forks of a zygote on this machine; the embedded default."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from typing import Any

from executor.backend import ExecutionEvent, SessionRef, SessionSpec, SessionStats
from executor.errors import BackendFailed, FileRefused
from executor.events import BackendStarted, Event, Fault
from executor.local import wire
from executor.local.connection import Connection, connect
from executor.local.report import file_from
from executor.results import FileInfo, Language
from executor.sandbox.report import SandboxReport
from executor.settings import SECRET, Settings

START_DEADLINE = 60.0
CREATE_DEADLINE = 20.0
REQUEST_DEADLINE = 30.0
CLOSE_DEADLINE = 5.0

_ROOT = Path(__file__).resolve().parent.parent.parent


class ZygoteProcess:
    """The zygote as its parent sees it. Making one starts the process and returns at once."""

    def __init__(self, settings: Settings, state: Path) -> None:
        self.started = time.monotonic()
        # messages, not a stream: one request or report each, and descriptors stay with theirs
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from executor.local.zygote import main; "
        code += f"main({theirs.fileno()}, {os.getpid()})"
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", code],
                env={
                    "PATH": "/usr/local/bin:/usr/bin:/bin",
                    "LANG": "C.UTF-8",
                    "HOME": str(state),
                    "MPLCONFIGDIR": str(state / "matplotlib"),
                    "MPLBACKEND": "agg",
                    # a zygote must have one thread: neither BLAS nor Arrow's allocator may start any
                    "OPENBLAS_NUM_THREADS": "1",
                    "OMP_NUM_THREADS": "1",
                    "JE_ARROW_MALLOC_CONF": "background_thread:false",
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                cwd="/",
                start_new_session=True,
            )
        self.control = ours
        self.control.setblocking(False)
        plain = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if not f.metadata[SECRET]}
        plain["state_dir"] = str(state)
        self.control.send(json.dumps(plain).encode())

    def stop(self) -> None:
        """Hang up; the zygote ends when its leaders have. Killed where it does not."""
        self.control.close()
        try:
            self.process.wait(timeout=CLOSE_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class LocalBackend:
    """Implements `executor.backend.Backend`. Making one starts the zygote, so that it loads while others import."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state = settings.state_path()
        self._temporary = not settings.state_dir
        self._sessions = self._state / "sessions"
        self._prepare_state()
        self._zygote = ZygoteProcess(settings, self._state)
        self._publish: Callable[[Event], None] = lambda _: None
        self._ready: asyncio.Future[SandboxReport] | None = None
        self._connections: dict[str, Connection] = {}
        self._folders: dict[str, str] = {}
        self._restarting = asyncio.Lock()
        self._closed = False

    def _prepare_state(self) -> None:
        # a session of its own uid must get through to its folder, but see no other's name
        self._state.chmod(0o711)
        if self._sessions.exists():
            shutil.rmtree(self._sessions, ignore_errors=True)
        self._sessions.mkdir(mode=0o711, parents=True)

    # Backend

    async def open(self, publish: Callable[[Event], None]) -> SandboxReport:
        """Wait until the zygote is ready."""
        self._publish = publish
        self._listen()
        assert self._ready is not None
        return await self._when_ready()

    async def aclose(self) -> None:
        """End every session and the zygote."""
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*(self._end(session_id) for session_id in tuple(self._connections)))
        with contextlib.suppress(RuntimeError, ValueError):
            asyncio.get_running_loop().remove_reader(self._zygote.control)
        await asyncio.to_thread(self._zygote.stop)
        await asyncio.to_thread(shutil.rmtree, self._state if self._temporary else self._sessions, True)

    async def create(self, spec: SessionSpec) -> SessionRef:
        """Fork a session, and wait until its Python is ready."""
        await self._need_zygote()
        ours, theirs = socket.socketpair()
        # unguessable, so that a neighbour of the same uid cannot even ask for its metadata
        folder = str(self._sessions / secrets.token_urlsafe(24))
        with theirs:
            message = json.dumps({"op": "create", "id": spec.id, "folder": folder}).encode()
            try:
                socket.send_fds(self._zygote.control, [message], [theirs.fileno()])
            except OSError as error:
                ours.close()
                raise BackendFailed(f"No session could be made: {error.strerror or error}. Try again.") from None
        connection = await connect(ours, spec.id)
        try:
            async with asyncio.timeout(CREATE_DEADLINE):
                await asyncio.shield(connection.ready)
        except TimeoutError:
            connection.hang_up()
            raise BackendFailed(f"A new session was not ready within {CREATE_DEADLINE:g} s. Try again.") from None
        except BaseException:
            connection.hang_up()
            raise
        self._connections[spec.id] = connection
        self._folders[spec.id] = folder
        return SessionRef(spec.id)

    async def close(self, ref: SessionRef) -> None:
        """End a session."""
        await self._end(ref.id)

    def alive(self, ref: SessionRef) -> bool:
        """Whether the leader still answers to us."""
        connection = self._connections.get(ref.id)
        return connection is not None and not connection.lost.done()

    async def stats(self, ref: SessionRef) -> SessionStats:
        """Ask the leader."""
        _, (reply, _) = await self._connection(ref).request("stats", deadline=REQUEST_DEADLINE)
        return SessionStats(**{field.name: int(reply[field.name]) for field in dataclasses.fields(SessionStats)})

    async def start(self, ref: SessionRef, language: Language, code: str, execution_id: str, timeout: float) -> None:
        """Send the code."""
        self._connection(ref).start(execution_id, language, code, timeout)

    def attach(self, ref: SessionRef, execution_id: str) -> AsyncIterator[ExecutionEvent]:
        """Follow an execution."""
        return self._connection(ref).execution(execution_id).follow()

    async def interrupt(self, ref: SessionRef, execution_id: str) -> None:
        """Ask for a stop."""
        self._connection(ref).interrupt(execution_id)

    async def put_file(self, ref: SessionRef, path: str, chunks: AsyncIterable[bytes]) -> FileInfo:
        """Stream a file in, one acknowledged chunk after the other."""
        connection = self._connection(ref)
        handle, _ = await connection.request("create", deadline=REQUEST_DEADLINE, path=path)
        try:
            async for data in chunks:
                for start in range(0, len(data), wire.CHUNK):
                    await connection.write_chunk(
                        handle, bytes(data[start : start + wire.CHUNK]), deadline=REQUEST_DEADLINE
                    )
            _, (reply, _) = await connection.request("commit", deadline=REQUEST_DEADLINE, handle=handle)
        except BaseException:
            await self._release(connection, handle)
            raise
        return file_from(reply.get("file"))

    async def get_file(
        self, ref: SessionRef, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """Stream a file out, one requested chunk after the other."""
        connection = self._connection(ref)
        handle, (reply, _) = await connection.request("open", deadline=REQUEST_DEADLINE, path=path)
        try:
            size = int(reply["size"])
            if size > self._settings.max_upload_mb << 20:
                raise FileRefused(
                    f"{path!r} has {size:,} bytes; at most {self._settings.max_upload_mb} MiB can be given out."
                )
            end = size if length is None else min(size, offset + length)
            while offset < end:
                _, (_, data) = await connection.request(
                    "read", deadline=REQUEST_DEADLINE, handle=handle, offset=offset, size=min(wire.CHUNK, end - offset)
                )
                if not data:
                    return  # it was cut while we read
                offset += len(data)
                yield data
        finally:
            await self._release(connection, handle)

    async def list_files(self, ref: SessionRef) -> list[FileInfo]:
        """Ask the leader."""
        _, (reply, _) = await self._connection(ref).request("list", deadline=REQUEST_DEADLINE)
        return [file_from(data) for data in reply.get("files", ())]

    async def move_file(self, ref: SessionRef, path: str, target: str) -> FileInfo:
        """Ask the leader."""
        _, (reply, _) = await self._connection(ref).request("move", deadline=REQUEST_DEADLINE, path=path, target=target)
        return file_from(reply.get("file"))

    async def delete_file(self, ref: SessionRef, path: str) -> None:
        """Ask the leader."""
        await self._connection(ref).request("delete", deadline=REQUEST_DEADLINE, path=path)

    # Inside

    def _connection(self, ref: SessionRef) -> Connection:
        if connection := self._connections.get(ref.id):
            return connection
        raise BackendFailed("The session is gone.")

    async def _release(self, connection: Connection, handle: int) -> None:
        with contextlib.suppress(BackendFailed):
            # shielded: also a cancelled transfer must let go of its file
            await asyncio.shield(connection.request("release", deadline=REQUEST_DEADLINE, handle=handle))

    async def _end(self, session_id: str) -> None:
        connection = self._connections.pop(session_id, None)
        folder = self._folders.pop(session_id, None)
        if connection is None or folder is None:
            return
        connection.close_request()
        try:
            async with asyncio.timeout(CLOSE_DEADLINE):
                await asyncio.shield(connection.lost)
        except TimeoutError:
            self._kill(session_id)
            self._publish(Fault(where="close", detail=f"a session did not close within {CLOSE_DEADLINE:g} s"))
        finally:
            connection.hang_up()

    def _kill(self, session_id: str) -> None:
        with contextlib.suppress(OSError):
            self._zygote.control.send(json.dumps({"op": "kill", "id": session_id}).encode())

    def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._ready = loop.create_future()
        self._ready.add_done_callback(lambda future: future.cancelled() or future.exception())
        loop.add_reader(self._zygote.control, self._hear, self._zygote, self._ready)

    def _hear(self, zygote: ZygoteProcess, ready: asyncio.Future[SandboxReport]) -> None:
        try:
            data = zygote.control.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            asyncio.get_running_loop().remove_reader(zygote.control)
            if not ready.done():
                ready.set_exception(BackendFailed("The zygote ended before it was ready; its error stands above."))
            elif not self._closed:
                detail = "The zygote ended; sessions that live go on, the next new one starts another."
                self._publish(Fault(where="zygote", detail=detail))
            return
        message: dict[str, Any] = json.loads(data)
        if message["event"] == "ready" and not ready.done():
            ready.set_result(SandboxReport.from_json(message["sandbox"]))
        elif message["event"] == "fault":
            self._publish(Fault(where="zygote", detail=message["detail"]))

    async def _when_ready(self, *, restart: bool = False) -> SandboxReport:
        assert self._ready is not None
        try:
            async with asyncio.timeout(START_DEADLINE):
                report = await asyncio.shield(self._ready)
        except TimeoutError:
            raise BackendFailed(f"The zygote was not ready within {START_DEADLINE:g} s.") from None
        self._publish(BackendStarted(seconds=time.monotonic() - self._zygote.started, restart=restart))
        return report

    async def _need_zygote(self) -> None:
        if self._closed:
            raise BackendFailed("The executor is shutting down.")
        if self._zygote.process.poll() is None:
            return
        async with self._restarting:
            if self._zygote.process.poll() is None:
                return
            with contextlib.suppress(ValueError):
                asyncio.get_running_loop().remove_reader(self._zygote.control)
            self._zygote.control.close()
            self._zygote = ZygoteProcess(self._settings, self._state)
            self._listen()
            await self._when_ready(restart=True)
