"""Launcher: starts the zygote, and has it fork sessions, one ahead of need."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from executor.errors import BackendFailed
from executor.events import BackendStarted, Event, Fault, bare_context
from executor.local.connection import Connection, connect
from executor.local.removal import remove_tree
from executor.sandbox.report import SandboxReport
from executor.settings import SECRET, Settings

START_DEADLINE = 60.0
CREATE_DEADLINE = 20.0
STOP_DEADLINE = 15.0
ENDING_DEADLINE = 2.0

TRIES = 3
"""Times that a session is tried to be made."""

REFILL_AFTER = 0.1
"""Seconds before the next spare session is forked."""

REMOVAL_PAUSES = (0.05, 0.2, 1.0, 5.0)
"""Seconds between tries to delete a folder: processes of a killed session may still be dying in it."""

_ROOT = Path(__file__).resolve().parent.parent.parent


class ZygoteProcess:
    """The zygote as its parent sees it. Making one starts the process and returns at once."""

    def __init__(self, settings: Settings, state: Path) -> None:
        self.started = time.monotonic()
        # messages, not a stream: one request or report each, and descriptors stay with theirs
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        code = f"import sys; sys.path.insert(0, {str(_ROOT)!r}); from executor.local.zygote import main; "
        code += f"main({theirs.fileno()})"
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
        self.control.setblocking(False)
        plain = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if not f.metadata[SECRET]}
        # the state folder may be a temporary one, which then is the zygote's to remove should we be killed
        plain["work_dir"] = str(state)
        self.control.send(json.dumps({"settings": plain, "temporary": not settings.work_dir}).encode())

    def send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send a request. Raises OSError."""
        socket.send_fds(self.control, [json.dumps(message).encode()], fds)

    def stop(self) -> None:
        """Hang up; the zygote ends when its leaders have. Killed where it does not."""
        self.control.close()
        try:
            self.process.wait(timeout=STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True, slots=True)
class Launched:
    """A session that was forked and is ready; `number` names it to the zygote."""

    connection: Connection
    number: int
    folder: Path


class Launcher:
    """Keeps a zygote running, and `SPARE_SESSIONS` sessions ready that belong to nobody yet."""

    def __init__(self, settings: Settings, state: Path, sessions: Path) -> None:
        """Start the zygote, which loads while we go on."""
        self._settings = settings
        self._state = state
        self._sessions = sessions
        self._zygote = ZygoteProcess(settings, state)
        self._publish: Callable[[Event], None] = lambda _: None
        self._ready: asyncio.Future[SandboxReport] | None = None
        self._spares: list[Launched] = []
        self._numbers = count(1)
        self._removals: set[asyncio.Task[None]] = set()
        self._refill: asyncio.Task[None] | None = None
        self._restarting = asyncio.Lock()
        self._closed = False

    async def open(self, publish: Callable[[Event], None]) -> SandboxReport:
        """Wait until the zygote is ready. Raises BackendFailed where it does not become so."""
        self._publish = publish
        report = await self._when_ready(self._listen())
        if report.level != "weak" or self._settings.allow_weak_sandbox:
            self._keep_spares()
        return report

    async def aclose(self) -> None:
        """End the spare sessions and the zygote; sessions that were handed out must have ended before."""
        self._closed = True
        if self._refill is not None:
            self._refill.cancel()
            await asyncio.gather(self._refill, return_exceptions=True)
        for spare in self._spares:
            spare.connection.hang_up()
        if self._removals:
            await asyncio.wait(tuple(self._removals), timeout=STOP_DEADLINE)
        with contextlib.suppress(RuntimeError, ValueError):
            asyncio.get_running_loop().remove_reader(self._zygote.control)
        await asyncio.to_thread(self._zygote.stop)

    async def launch(self) -> Launched:
        """A session for somebody, a spare one where there is one. Raises BackendFailed."""
        try:
            while self._spares:
                spare = self._spares.pop()
                if not spare.connection.lost.done():
                    return spare
            until = time.monotonic() + CREATE_DEADLINE
            for tried in range(1, TRIES):
                try:
                    return await self._fork()
                except BackendFailed as error:
                    if self._closed or (tried > 1 and time.monotonic() > until):
                        raise
                    # cleaning up behind a leader that was killed may hit one that is just being made, and a zygote that
                    # dies takes one with it, and refuses the next while it ends; nothing ran in either
                    self._publish(Fault(where="create", detail=f"{error} It is tried once more."))
            return await self._fork()
        finally:
            self._keep_spares()

    def kill(self, number: int) -> None:
        """Have the zygote kill a leader that does not answer."""
        with contextlib.suppress(OSError):
            self._zygote.send({"op": "kill", "number": number})

    def _keep_spares(self) -> None:
        if not self._closed and self._settings.spare_sessions and (self._refill is None or self._refill.done()):
            self._refill = asyncio.create_task(self._fill(), name="spare-sessions", context=bare_context())

    async def _fill(self) -> None:
        # whoever got the last one is served first, and does not share a core with making the next
        await asyncio.sleep(REFILL_AFTER)
        while len(self._spares) < self._settings.spare_sessions:
            try:
                self._spares.append(await self._fork())
            except BackendFailed as error:
                # the next session that is asked for tries again, and its caller learns why it fails
                self._publish(Fault(where="spare", detail=str(error)))
                return

    async def _fork(self) -> Launched:
        await self._need_zygote()
        ours, theirs = socket.socketpair()
        number = next(self._numbers)
        # unguessable, so that a neighbour of the same uid cannot even ask for its metadata
        folder = self._sessions / secrets.token_urlsafe(24)
        handle = -1
        try:
            folder.mkdir(mode=0o700)
            # the zygote gets a handle and not the name: its memory is every guest's
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            self._zygote.send({"op": "create", "number": number}, (theirs.fileno(), handle))
        except OSError as error:
            ours.close()
            with contextlib.suppress(OSError):
                folder.rmdir()
            if isinstance(error, ConnectionError):
                # the zygote is ending, and can be replaced when it has ended
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(self._zygote.process.wait, ENDING_DEADLINE)
            raise BackendFailed(f"No session could be made: {error.strerror or error}. Try again.") from None
        finally:
            theirs.close()
            if handle >= 0:
                os.close(handle)
        connection = await connect(ours)
        connection.lost.add_done_callback(lambda _: self._remove(folder))
        try:
            async with asyncio.timeout(CREATE_DEADLINE):
                await asyncio.shield(connection.ready)
        except TimeoutError:
            connection.hang_up()
            self.kill(number)
            raise BackendFailed(f"A new session was not ready within {CREATE_DEADLINE:g} s. Try again.") from None
        except BaseException:
            connection.hang_up()
            raise
        return Launched(connection, number, folder)

    def _remove(self, folder: Path) -> None:
        task = asyncio.create_task(self._remove_soon(folder), name="folder-removal")
        self._removals.add(task)
        task.add_done_callback(self._removals.discard)

    async def _remove_soon(self, folder: Path) -> None:
        """A leader empties its folder before it ends; one that was killed leaves that, and maybe processes, to us."""
        for pause in REMOVAL_PAUSES:
            await asyncio.to_thread(remove_tree, str(folder))
            if not await asyncio.to_thread(folder.exists):
                return
            await asyncio.sleep(pause)
        self._publish(Fault(where="removal", detail="a session's folder could not be deleted"))

    # The zygote

    def _listen(self) -> asyncio.Future[SandboxReport]:
        loop = asyncio.get_running_loop()
        self._ready = ready = loop.create_future()
        # nobody may be waiting for it when it fails; that is no fault
        ready.add_done_callback(lambda future: future.cancelled() or future.exception())
        loop.add_reader(self._zygote.control, self._hear, self._zygote, ready)
        return ready

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

    async def _when_ready(self, ready: asyncio.Future[SandboxReport], *, restart: bool = False) -> SandboxReport:
        try:
            async with asyncio.timeout(START_DEADLINE):
                report = await asyncio.shield(ready)
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
            self._zygote = await asyncio.to_thread(ZygoteProcess, self._settings, self._state)
            await self._when_ready(self._listen(), restart=True)
