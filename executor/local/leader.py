"""Leader: the trusted process of one session.

It never runs the guest's code. It starts and replaces workers, pumps and caps their output, keeps the clock, watches
what the session uses, serves files through directory handles, and ends the whole tree when told to, when a limit asks
for it, or when the server is gone. One thread, one epoll loop; all that a worker says is checked before it counts.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from executor.errors import BackendFailed, ExecutorError
from executor.languages import channel
from executor.languages.channel import ProtocolError
from executor.local import wire
from executor.local.cell import Cell, StopReason
from executor.local.guard import Guard
from executor.local.stream import Stream
from executor.local.transfers import Transfers, file_json
from executor.local.worker import Program, Worker
from executor.local.workspace import Workspace
from executor.results import Language, Status
from executor.sandbox.confinement import Sandbox
from executor.sandbox.notifier import explain
from executor.settings import Settings

FLUSH_EVERY = 0.05
"""Seconds between two parts of streamed output: short cells answer in one frame, long ones feel live."""

START_TIMEOUT = 30.0
"""Seconds in which a new worker must say that it is ready."""

DYING = 1.0
"""Seconds in which a worker that has hung up must have ended."""

MAX_FILES_REPORTED = 100

_SIGNALS: dict[int, str] = {
    signal.SIGSEGV: "segmentation fault",
    signal.SIGKILL: "killed",
    signal.SIGABRT: "aborted",
    signal.SIGFPE: "arithmetic error",
    signal.SIGILL: "illegal instruction",
    signal.SIGBUS: "bus error",
    signal.SIGSYS: "a system call that is never allowed here",
    signal.SIGXCPU: "CPU time used up",
    signal.SIGXFSZ: "file too big",
    signal.SIGTERM: "terminated",
}

_NAMES: dict[Language, str] = {"python": "Python", "javascript": "JavaScript", "bash": "bash"}

_LOST: dict[Language, str] = {
    "python": "its variables and imports are lost",
    "javascript": "its variables are lost",
    "bash": "its variables, functions and current directory are lost",
}


class Leader:
    """One session: its workspace, its workers, the cell under way."""

    def __init__(
        self,
        server: socket.socket,
        *,
        workspace: Workspace,
        settings: Settings,
        programs: dict[Language, Program],
        guard: Guard,
    ) -> None:
        self._server = server
        self._server.setblocking(False)
        self._decoder = wire.Decoder()
        self._unsent = bytearray()
        self._workspace = workspace
        self._settings = settings
        self._programs = programs
        self._guard = guard
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._workers: dict[Language, Worker] = {}
        self._background: dict[tuple[Language, str], bytearray] = {}
        self._numbers = dict.fromkeys(programs, 0)
        self._cell: Cell | None = None
        self._dying: dict[int, float] = {}
        self._next_flush = 0.0
        self._replaced: str | None = None
        self._transfers = Transfers(workspace, max_file=settings.max_upload_mb << 20)
        self._announced = False
        self._closing = False

    # The loop

    def run(self) -> NoReturn:
        """Serve until the session is closed or the server is gone, then leave nothing behind."""
        try:
            self._watch_children()
            self._add(self._server.fileno(), self._on_server)
            self._worker("python")
            while not self._closing:
                for fd, mask in self._poll.poll(self._wait(), 64):
                    if handler := self._handlers.get(fd):
                        handler(mask)
                self._tick(time.monotonic())
        finally:
            self._guard.end_session()
            self._workspace.remove()
        self._server.setblocking(True)
        with contextlib.suppress(OSError):
            self._server.sendall(wire.encode({"event": "closed"}))
        os._exit(0)

    def _wait(self) -> float:
        due = min(self._guard.next_look(), *self._dying.values(), float("inf"))
        if cell := self._cell:
            due = min(due, cell.hard_at if cell.hard_at is not None else cell.deadline)
            if cell.unshown:
                due = min(due, self._next_flush)
        return -1 if due == float("inf") else max(0.0, due - time.monotonic())

    def _tick(self, now: float) -> None:
        if cell := self._cell:
            if cell.unshown and now >= self._next_flush:
                self._flush_output(cell, now)
            if cell.hard_at is not None and now >= cell.hard_at:
                self._hard_stop(cell)
            elif cell.stop is None and now >= cell.deadline:
                self._stop(cell, "timeout")
        if now >= self._guard.next_look():
            self._look(now)
        for pid in [pid for pid, end in self._dying.items() if now >= end]:
            del self._dying[pid]
            self._guard.kill(pid)

    def _add(self, fd: int, handler: Callable[[int], None], mask: int = select.EPOLLIN) -> None:
        self._handlers[fd] = handler
        self._poll.register(fd, mask)

    def _remove(self, fd: int) -> None:
        if self._handlers.pop(fd, None):
            with contextlib.suppress(OSError):
                self._poll.unregister(fd)

    def _watch_children(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def on_child(_: int) -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 4096)
            self._reap()

        self._add(reader, on_child)

    # The server

    def _on_server(self, mask: int) -> None:
        if mask & select.EPOLLOUT:
            self._flush_server()
        if not mask & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return
        try:
            data = self._server.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._closing = True
            return
        try:
            for frame in self._decoder.feed(data):
                if isinstance(frame, wire.Chunk):
                    self._answer(frame.channel, partial(self._transfers.write, frame))
                else:
                    self._obey(frame)
        except wire.FrameError:
            self._closing = True

    def _obey(self, message: dict[str, Any]) -> None:
        match message["op"]:
            case "execute":
                self._execute(message)
            case "interrupt":
                if (cell := self._cell) and cell.id == message["id"] and cell.stop is None:
                    self._stop(cell, "interrupted")
            case "close":
                self._closing = True
            case "relieve":
                self._guard.give_way(message["budget"])
                self._over("memory")
            case "stats":
                self._answer(message["request"], self._stats)
            case "read":
                self._write(wire.encode_chunk(message["request"], self._transfers.read(message)))
                self._answer(message["request"], dict)
            case _:
                self._answer(message["request"], lambda: self._transfers.carry_out(message))

    def _answer(self, request: int, act: Callable[[], dict[str, Any]]) -> None:
        try:
            reply = act()
        except ExecutorError as error:
            reply = {"error": type(error).__name__, "message": str(error)}
        except OSError as error:
            reply = {"error": "FileRefused", "message": f"The file system refused: {error.strerror or error}."}
        self._tell({"reply": request, **reply})

    def _tell(self, message: dict[str, Any]) -> None:
        self._write(wire.encode(message))

    def _write(self, data: bytes) -> None:
        self._unsent += data
        self._flush_server()

    def _flush_server(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._server.send(self._unsent)]
        except BlockingIOError:
            self._poll.modify(self._server.fileno(), select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError:
            self._closing = True
            self._unsent.clear()
        self._poll.modify(self._server.fileno(), select.EPOLLIN)

    # Executions

    def _execute(self, message: dict[str, Any]) -> None:
        language: Language = message["language"]
        number = self._numbers[language] = self._numbers[language] + 1
        streams = [
            Stream(
                name,
                self._workspace,
                cap=self._settings.max_output_length,
                log=f"logs/{language}-{number}-{name}.txt",
                max_log=self._settings.max_log_bytes,
            )
            for name in ("stdout", "stderr")
        ]
        cell = Cell(
            id=message["id"],
            language=language,
            code=message["code"],
            number=number,
            timeout=message["timeout"],
            stdout=streams[0],
            stderr=streams[1],
        )
        self._replaced = None
        self._cell = cell
        self._next_flush = cell.started + FLUSH_EVERY
        self._guard.cell_started()
        try:
            worker = self._worker(language)
        except (OSError, BackendFailed) as error:
            cell.notices.append(f"The {_NAMES[language]} process could not be started: {error}")
            self._finish(cell, "crashed", 1)
            return
        self._drain(worker)
        self._give_background(cell)
        if worker.ready:
            self._hand_over(worker, cell)

    def _hand_over(self, worker: Worker, cell: Cell) -> None:
        cell.sent = True
        self._send(worker, worker.speaker.execute(cell.id, cell.code, cell.number))
        cell.code = ""

    def _give_background(self, cell: Cell) -> None:
        for stream in ("stdout", "stderr"):
            if text := self._background.pop((cell.language, stream), None):
                cell.feed(stream, b"[output of background work since the last cell]\n" + bytes(text))
                cell.feed(stream, b"[end of it]\n" if text.endswith(b"\n") else b"\n[end of it]\n")

    def _flush_output(self, cell: Cell, now: float) -> None:
        self._next_flush = now + FLUSH_EVERY
        joined: dict[str, list[str]] = {}
        for stream, text in cell.unshown:
            joined.setdefault(stream, []).append(text)
        cell.unshown.clear()
        for stream, texts in joined.items():
            self._tell({"event": "output", "id": cell.id, "stream": stream, "text": "".join(texts)})

    def _finish(
        self, cell: Cell, status: Status, return_code: int | None, error: Mapping[str, Any] | None = None
    ) -> None:
        changes = self._workspace.changes()
        if len(changes) > MAX_FILES_REPORTED:
            cell.notices.append(
                f"{len(changes)} files are new or changed; the first {MAX_FILES_REPORTED} are listed here."
            )
        refused = self._guard.cell_finished()
        cell.notices.extend(explain(kind) for kind in refused)
        self._cell = None
        report = cell.report(
            status=status,
            return_code=return_code,
            error=error,
            files=[file_json(info) for info in changes[:MAX_FILES_REPORTED]],
            refused=refused,
        )
        self._tell(
            {
                "event": "finished",
                "id": cell.id,
                "result": report,
                "limits": cell.limits,
                "replaced": self._replaced,
            }
        )

    def _stop(self, cell: Cell, reason: StopReason) -> None:
        """The soft stop; the hard one follows after the grace."""
        cell.stop = reason
        cell.hard_at = time.monotonic() + self._settings.interrupt_grace
        worker = self._workers.get(cell.language)
        if worker is None or not cell.sent:
            self._conclude_stop(cell, None, kept=True)
            return
        worker.soft_stop()

    def _hard_stop(self, cell: Cell) -> None:
        cell.hard_at = float("inf")
        cell.killed = True
        if worker := self._workers.get(cell.language):
            self._guard.kill(worker.pid)

    def _conclude_stop(self, cell: Cell, error: Mapping[str, Any] | None, *, kept: bool) -> None:
        assert cell.stop is not None
        self._guard.kill_since(cell.started)
        what = {
            "timeout": f"The code was stopped after {cell.timeout:g} s, its time limit.",
            "interrupted": "The code was interrupted.",
            "memory": self._guard.why("memory"),
            "disk": self._guard.why("disk"),
        }[cell.stop]
        cell.notices.insert(0, what + (" Variables are kept." if kept else ""))
        if cell.stop != "interrupted":
            cell.limits.append(cell.stop)
        self._finish(cell, cell.stop, 130 if kept else 137, error)

    # What the session uses

    def _look(self, now: float) -> None:
        if verdict := self._guard.look(now):
            self._over(verdict)
        if self._guard.news:
            self._tell({"event": "usage", "memory": self._guard.memory})
            self._guard.news = False

    def _over(self, limit: StopReason) -> None:
        if cell := self._cell:
            if cell.stop is None:
                self._stop(cell, limit)
                if limit == "memory" and self._cell is cell:
                    # every further second may take the machine down: there is no grace for memory
                    self._hard_stop(cell)
            return
        self._guard.kill_background()
        if limit == "memory":
            # nothing runs, so it is variables that take the room
            for worker in self._workers.values():
                self._guard.kill(worker.pid)

    # Workers

    def _worker(self, language: Language) -> Worker:
        if worker := self._workers.get(language):
            return worker
        worker = Worker(
            self._programs[language],
            Path(self._workspace.root),
            entrance=self._guard.entrance(),
            parent=self._guard.worker_parent,
        )
        self._workers[language] = worker
        self._guard.worker_started(worker.pid)
        self._add(worker.control.fileno(), lambda mask: self._on_control(worker, mask))
        for fd, stream in worker.pipes.items():
            self._add(fd, partial(self._on_pipe, worker, fd, stream))
        if worker.listener is not None:
            self._add(worker.listener, partial(self._on_question, worker.listener))
        return worker

    def _on_question(self, listener: int, _: int) -> None:
        if not self._guard.answer(listener):
            self._remove(listener)

    def _send(self, worker: Worker, data: bytes) -> None:
        if not worker.send(data):
            self._poll.modify(worker.control.fileno(), select.EPOLLIN | select.EPOLLOUT)

    def _on_control(self, worker: Worker, mask: int) -> None:
        if mask & select.EPOLLOUT and worker.flush():
            self._poll.modify(worker.control.fileno(), select.EPOLLIN)
        if not mask & ~select.EPOLLOUT:
            return
        data = worker.receive()
        if not data:
            # hung up: it is dying by itself, or has closed its end and can be of no more use
            self._remove(worker.control.fileno())
            self._dying[worker.pid] = time.monotonic() + DYING
            return
        self._hear(worker, data)

    def _hear(self, worker: Worker, data: bytes) -> None:
        try:
            events = worker.speaker.feed(data)
        except ProtocolError:
            self._guard.kill(worker.pid)
            return
        for event in events:
            self._on_event(worker, event)

    def _on_event(self, worker: Worker, event: channel.Event) -> None:
        cell = self._cell
        if event["event"] == "ready":
            worker.ready = True
            if not self._announced:
                self._announced = True
                self._tell({"event": "ready"})
            if cell and cell.language == worker.language and not cell.sent:
                self._hand_over(worker, cell)
            return
        # one outstanding id: whatever names another one is stale or forged, and is ignored
        if cell is None or event["id"] != cell.id or cell.language != worker.language or not cell.sent:
            return
        if event["event"] == "display":
            output: dict[str, Any] = {
                "data": event["data"],
                "picture": event["picture"],
                "is_result": event["is_result"],
            }
            if cell.display(output, limit=self._settings.max_outputs):
                if cell.unshown:
                    self._flush_output(cell, time.monotonic())
                self._tell({"event": "display", "id": cell.id, "output": output})
            return
        self._drain(worker)
        cell.notices.extend(event["notices"])
        self._end_cell(cell, event)

    def _end_cell(self, cell: Cell, done: channel.Done) -> None:
        if cell.stop:
            self._conclude_stop(cell, done["error"], kept=True)
        else:
            self._finish(cell, done["status"], done["return_code"], done["error"])

    def _on_pipe(self, worker: Worker, fd: int, stream: str, _: int) -> None:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if not data:
            self._remove(fd)
            return
        self._printed(worker.language, stream, data)

    def _printed(self, language: Language, stream: str, data: bytes) -> None:
        if (cell := self._cell) and cell.language == language:
            cell.feed(stream, data)
            return
        kept = self._background.setdefault((language, stream), bytearray())
        kept += data
        if len(kept) > self._settings.max_output_length:
            del kept[: -self._settings.max_output_length]

    def _drain(self, worker: Worker) -> None:
        for fd, stream in worker.pipes.items():
            # twice what a pipe holds: a background writer must not keep us here
            for _ in range(32):
                try:
                    data = os.read(fd, 1 << 16)
                except OSError:
                    break
                if not data:
                    break
                self._printed(worker.language, stream, data)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._guard.init:
                self._closing = True
            for worker in tuple(self._workers.values()):
                if worker.pid == pid:
                    self._on_exit(worker, os.waitstatus_to_exitcode(status))

    def _on_exit(self, worker: Worker, code: int) -> None:
        del self._workers[worker.language]
        self._dying.pop(worker.pid, None)
        # what it said before it died still counts, a result above all
        while data := worker.receive():
            self._hear(worker, data)
        self._drain(worker)
        for fd in worker.descriptors():
            self._remove(fd)
        cell = self._cell if self._cell and self._cell.language == worker.language else None
        done = worker.speaker.after_exit(code, interrupted=bool(cell and cell.stop)) if worker.ready else None
        # a shell that exits leaves its jobs alone; what dies takes along what it had started
        self._guard.worker_ended(worker.pid, alone=done is not None)
        worker.close()
        name = _NAMES[worker.language]
        cause = f"signal {-code} ({_SIGNALS.get(-code, 'no further reason')})" if code < 0 else f"exit code {code}"
        lost = f"A new {name} process takes its place: {_LOST[worker.language]}; files and other languages are kept."
        if cell is not None and done is not None and done["id"] == cell.id:
            cell.notices.extend(done["notices"])
            self._end_cell(cell, done)
        elif not worker.ready and not (cell and cell.stop):
            self._on_no_start(worker, cause)
        elif cell is not None:
            self._replaced = f"{cell.stop}: {cause}" if cell.stop else cause
            if cell.stop:
                cell.notices.append(f"The {name} process did not stop by itself and was ended. {lost}")
                self._conclude_stop(cell, None, kept=False)
            else:
                if code == -signal.SIGXCPU:
                    cell.limits.append("cpu")
                cell.notices.append(f"The {name} process ended with {cause}. {lost}")
                self._finish(cell, "crashed", 128 - code if code < 0 else code)
        elif done is None:
            self._background.setdefault((worker.language, "stderr"), bytearray()).extend(
                f"The {name} process ended between two cells with {cause}. {lost}\n".encode()
            )
        if worker.language == "python" and not self._closing and worker.ready:
            # at once, so that the next cell need not wait; where it cannot be, the next cell tries again and says so
            with contextlib.suppress(OSError, BackendFailed):
                self._worker("python")

    def _on_no_start(self, worker: Worker, cause: str) -> None:
        said = b"".join(bytes(text) for key, text in self._background.items() if key[0] == worker.language)
        text = said.decode("utf-8", "replace")[-2000:].strip()
        if not self._announced:
            self._tell({"event": "failed", "message": f"the Python worker did not start ({cause}). {text}"})
            self._closing = True
        elif cell := self._cell:
            cell.notices.append(f"The {_NAMES[worker.language]} process did not start ({cause}). Try again.")
            self._finish(cell, "crashed", 1)

    def _stats(self) -> dict[str, Any]:
        size, count = self._workspace.usage()
        return {**self._guard.stats(), "folder_bytes": size, "folder_files": count}


def lead(
    server: socket.socket,
    *,
    folder: str,
    uid: int | None,
    settings: Settings,
    programs: Callable[[Path], dict[Language, Program]],
    sandbox: Sandbox,
) -> NoReturn:
    """Be the leader of a session, in a process just forked from the zygote. `folder` exists and is `uid`'s."""
    # nothing here makes cycles worth a collection, and a collection would touch, so copy, shared pages
    gc.disable()
    try:
        guard = Guard(sandbox, folder, uid=uid)
        workspace = Workspace(guard.folder, max_bytes=settings.session_disk_mb << 20, max_files=settings.session_files)
        Leader(
            server,
            workspace=workspace,
            settings=settings,
            programs=programs(Path(guard.folder)),
            guard=guard,
        ).run()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            server.setblocking(True)
            server.settimeout(1)
            server.sendall(wire.encode({"event": "failed", "message": f"the session's leader failed: {error!r}"}))
    finally:
        os._exit(71)
