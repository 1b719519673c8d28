"""Leader: the trusted process of one session.

It never runs the guest's code. It starts and replaces workers, pumps and caps their output, keeps the clock, watches
what the session uses, serves files through directory handles, and ends the whole tree when told to, when a limit asks
for it, or when the server is gone. One thread, one epoll loop; all that a worker says is checked before it counts.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from executor.errors import BackendFailed, Busy, ExecutorError
from executor.languages import channel
from executor.languages.hints import bash_hint, javascript_hint, timeout_hint
from executor.local import wire
from executor.local.cell import Cell, StopReason
from executor.local.crew import NAMES, Crew, Death
from executor.local.guard import Guard
from executor.local.line import Line
from executor.local.loop import Loop
from executor.local.saving import State
from executor.local.states import States
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

MAX_FILES_REPORTED = 100

_NEVER = float("inf")


class Leader:
    """One session: its workspace, its crew, the cell under way. Implements `crew.Listener`."""

    def __init__(
        self,
        server: socket.socket,
        *,
        workspace: Workspace,
        settings: Settings,
        programs: dict[Language, Program],
        guard: Guard,
    ) -> None:
        self._workspace = workspace
        self._settings = settings
        self._guard = guard
        self._loop = Loop()
        self._line = Line(server, self._loop, self._obey)
        self._crew = Crew(programs, Path(workspace.root), guard=guard, loop=self._loop, listener=self)
        self._states = States(
            workspace=workspace,
            crew=self._crew,
            guard=guard,
            loop=self._loop,
            programs=programs,
            running=lambda: self._cell.language if self._cell else None,
        )
        self._transfers = Transfers(workspace, max_file=settings.max_upload_mb << 20)
        self._numbers = dict.fromkeys(programs, 0)
        self._cell: Cell | None = None
        self._background: dict[tuple[Language, str], bytearray] = {}
        self._next_flush = 0.0
        self._announced = False
        self._starved = False
        self._closing = False

    def run(self) -> NoReturn:
        """Serve until the session is closed or the server is gone, then leave nothing behind."""
        try:
            self._watch_children()
            self._crew.worker("python")
            while not (self._closing or self._line.cut):
                self._loop.turn(self._wait())
                self._tick(time.monotonic())
        finally:
            self._guard.end_session()
            self._workspace.remove()
        self._line.farewell({"event": "closed"})
        os._exit(0)

    def _wait(self) -> float:
        due = min(self._guard.next_look(), self._crew.next_check(), self._states.next_step())
        if cell := self._cell:
            due = min(due, cell.deadline if cell.hard_at is None else cell.hard_at)
            if cell.unshown:
                due = min(due, self._next_flush)
        return max(0.0, due - time.monotonic())

    def _tick(self, now: float) -> None:
        if cell := self._cell:
            if cell.unshown and now >= self._next_flush:
                self._show_output(cell, now)
            if cell.hard_at is not None and now >= cell.hard_at:
                self._hard_stop(cell)
            elif cell.stop is None and now >= cell.deadline:
                self._stop(cell, "timeout")
        if now >= self._guard.next_look():
            if limit := self._guard.look(now):
                self._over(limit)
            if (memory := self._guard.news()) is not None:
                self._line.tell({"event": "usage", "memory": memory})
        self._crew.check(now)
        self._states.step(now)

    def _watch_children(self) -> None:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

        def on_child(*_: bool) -> None:
            with contextlib.suppress(BlockingIOError):
                os.read(reader, 4096)
            ended = self._crew.reap()
            self._states.reaped(ended)
            if self._guard.init in ended:
                self._closing = True

        self._loop.add(reader, on_child)

    # What the server asks for

    def _obey(self, frame: dict[str, Any] | wire.Chunk) -> None:
        if isinstance(frame, wire.Chunk):
            self._answer(frame.channel, lambda: self._transfers.write(frame))
            return
        match frame["op"]:
            case "execute":
                self._execute(frame)
            case "interrupt":
                if (cell := self._cell) and cell.id == frame["id"] and cell.stop is None:
                    self._stop(cell, "interrupted")
            case "close":
                self._closing = True
            case "relieve":
                self._guard.give_way(frame["budget"])
                self._over("memory")
            case "save":
                self._answer_later(frame["request"], partial(self._states.save, frame["limit"]))
                self._line.tell({"event": "saving"})
            case "restore":
                # cells are counted on, so that no name of a log or in a message means two of them
                self._numbers.update(frame["numbers"])
                self._answer_later(
                    frame["request"], partial(self._states.restore, frame["languages"], frame["numbers"])
                )
            case "stats":
                self._answer(frame["request"], self._stats)
            case "printed":
                self._answer(frame["request"], lambda: self._printed(frame["id"]))
            case "read":
                self._line.write(wire.encode_chunk(frame["request"], self._transfers.read(frame)))
                self._answer(frame["request"], dict)
            case _:
                self._answer(frame["request"], lambda: self._transfers.carry_out(frame))

    def _answer(self, request: int, act: Callable[[], dict[str, Any]]) -> None:
        try:
            reply = act()
        except ExecutorError as error:
            reply = {"error": type(error).__name__, "message": str(error)}
        except OSError as error:
            reply = {"error": "FileRefused", "message": f"The file system refused: {error.strerror or error}."}
        self._line.tell({"reply": request, **reply})

    def _answer_later(
        self, request: int, order: Callable[[Callable[[list[State] | ExecutorError], None]], None]
    ) -> None:
        """Answer with the states that an order comes to, in the end."""

        def reply(states: list[State] | ExecutorError) -> None:
            if isinstance(states, ExecutorError):
                self._line.tell({"reply": request, "error": type(states).__name__, "message": str(states)})
            else:
                self._line.tell({"reply": request, "states": [state.to_json() for state in states]})

        try:
            order(reply)
        except Busy as busy:
            reply(busy)
        except Exception as error:
            # whatever it is, the session is worth more than its snapshot
            self._line.tell({"reply": request, "error": "BackendFailed", "message": f"It failed: {error!r}"})

    def _stats(self) -> dict[str, Any]:
        size, count = self._workspace.usage()
        return {**self._guard.stats(), "folder_bytes": size, "folder_files": count}

    def _printed(self, execution_id: str) -> dict[str, Any]:
        cell = self._cell
        if cell is None or cell.id != execution_id:
            return {"stdout": "", "stderr": ""}
        return {"stdout": cell.stdout.so_far(), "stderr": cell.stderr.so_far()}

    # A cell: from its start to its report

    def _execute(self, message: dict[str, Any]) -> None:
        language: Language = message["language"]
        number = self._numbers[language] = self._numbers[language] + 1
        cell = Cell(
            id=message["id"],
            language=language,
            code=message["code"],
            number=number,
            timeout=message["timeout"],
            stdout=self._stream("stdout", language, number),
            stderr=self._stream("stderr", language, number),
        )
        self._cell = cell
        self._next_flush = cell.started + FLUSH_EVERY
        self._guard.cell_started()
        self._states.cell_began(language, number)
        cell.notices += self._states.notices()
        try:
            worker = self._crew.worker(language)
        except (OSError, BackendFailed) as error:
            cell.notices.append(f"The {NAMES[language]} process could not be started: {error}")
            self._finish(cell, "crashed", 1)
            return
        # what came before this cell is not its own
        self._cell = None
        self._crew.drain(worker)
        self._cell = cell
        self._give_background(cell)
        if worker.ready and not self._states.is_restoring(worker):
            self._hand_over(worker, cell)

    def _stream(self, name: str, language: Language, number: int) -> Stream:
        return Stream(
            name,
            self._workspace,
            cap=self._settings.max_output_length,
            log=f"logs/{language}-{number}-{name}.txt",
            max_log=self._settings.max_log_bytes,
        )

    def _hand_over(self, worker: Worker, cell: Cell) -> None:
        cell.sent = True
        self._crew.send(worker, worker.speaker.execute(cell.id, cell.code, cell.number))
        cell.code = ""

    def _give_background(self, cell: Cell) -> None:
        for stream in ("stdout", "stderr"):
            if text := self._background.pop((cell.language, stream), None):
                cell.feed(stream, b"[output of background work since the last cell]\n" + bytes(text))
                cell.feed(stream, b"[end of it]\n" if text.endswith(b"\n") else b"\n[end of it]\n")

    def _show_output(self, cell: Cell, now: float) -> None:
        self._next_flush = now + FLUSH_EVERY
        cell.streaming = True
        joined: dict[str, list[str]] = {}
        for stream, text in cell.unshown:
            joined.setdefault(stream, []).append(text)
        cell.unshown.clear()
        for stream, texts in joined.items():
            self._line.tell({"event": "output", "id": cell.id, "stream": stream, "text": "".join(texts)})

    def _finish(
        self, cell: Cell, status: Status, return_code: int | None, error: Mapping[str, Any] | None = None
    ) -> None:
        if cell.unshown and cell.streaming:
            # who has followed so far gets the rest the same way
            self._show_output(cell, time.monotonic())
        changes = self._workspace.changes()
        if len(changes) > MAX_FILES_REPORTED:
            cell.notices.append(
                f"{len(changes)} files are new or changed; the first {MAX_FILES_REPORTED} are listed here."
            )
        refused = self._guard.cell_finished()
        if status != "ok":
            # code that went on all the same needs no explanation
            cell.notices.extend(why for kind in refused if (why := explain(kind)) not in cell.notices)
        cell.limits.extend(kind for kind in refused if kind in ("processes", "threads"))
        self._cell = None
        result = cell.report(
            status=status,
            return_code=return_code,
            error=error,
            files=[file_json(info) for info in changes[:MAX_FILES_REPORTED]],
            refused=refused,
        )
        message = {"event": "finished", "id": cell.id, "result": result}
        self._line.tell({**message, "limits": cell.limits, "replaced": cell.replaced})

    # Stops

    def _stop(self, cell: Cell, reason: StopReason) -> None:
        """The soft stop; the hard one follows after the grace."""
        cell.stop = reason
        cell.hard_at = time.monotonic() + self._settings.interrupt_grace
        worker = self._crew.known(cell.language)
        if worker is None or not cell.sent:
            self._states.give_up(cell.language)
            self._conclude_stop(cell, None, kept=True)
        elif (message := worker.speaker.interrupt()) is not None:
            self._crew.send(worker, message)
        else:
            worker.signal_stop()

    def _hard_stop(self, cell: Cell) -> None:
        cell.hard_at = _NEVER
        self._crew.kill(cell.language)

    def _conclude_stop(self, cell: Cell, error: Mapping[str, Any] | None, *, kept: bool) -> None:
        assert cell.stop is not None
        self._guard.kill_since(cell.started)
        what = {
            "timeout": f"The code was stopped after {cell.timeout:g} s, its time limit.",
            "interrupted": "The code was interrupted.",
        }.get(cell.stop) or self._guard.why(cell.stop)
        cell.notices.insert(0, what + (" Variables are kept." if kept else ""))
        if cell.stop == "timeout":
            hint = timeout_hint(cell.timeout, self._settings.max_execution_timeout)
            if error is None:
                cell.notices.append(hint)
            else:
                error = {**error, "hint": hint}
        if cell.stop != "interrupted":
            cell.limits.append(cell.stop)
        self._finish(cell, cell.stop, 130 if kept else 137, error)

    def _over(self, limit: StopReason) -> None:
        if limit == "memory" and self._states.give_way():
            return  # the copies that were made to save it are gone; the next look tells whether that was all
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
            self._starved = True
            self._crew.kill_all()

    # What the crew tells

    def on_ready(self, worker: Worker) -> None:
        """Give it the cell that waits for it."""
        if not self._announced:
            self._announced = True
            self._line.tell({"event": "ready"})
        if self._states.on_ready(worker):
            self._give_cell(worker)

    def on_restored(self, worker: Worker, event: channel.Restored) -> None:
        """It has its state, or goes on without."""
        self._states.on_restored(worker, event)
        self._give_cell(worker)

    def _give_cell(self, worker: Worker) -> None:
        if (cell := self._cell) and cell.language == worker.language and not cell.sent:
            self._hand_over(worker, cell)

    def on_display(self, worker: Worker, event: channel.Display) -> None:
        """Keep it with the cell, and show it at once, after what was printed before."""
        if (cell := self._own_cell(worker, event["id"])) is None:
            return
        output = {"data": event["data"], "picture": event["picture"], "is_result": event["is_result"]}
        if cell.display(output, limit=self._settings.max_outputs):
            if cell.unshown:
                self._show_output(cell, time.monotonic())
            self._line.tell({"event": "display", "id": cell.id, "output": output})

    def on_done(self, worker: Worker, event: channel.Done) -> None:
        """Report the cell."""
        if cell := self._own_cell(worker, event["id"]):
            self._end_cell(cell, event)

    def on_printed(self, language: Language, stream: str, data: bytes) -> None:
        """It is the cell's, or of background work, whose last part is kept for the next cell."""
        if (cell := self._cell) and cell.language == language:
            cell.feed(stream, data)
            return
        kept = self._background.setdefault((language, stream), bytearray())
        kept += data
        if len(kept) > self._settings.max_output_length:
            del kept[: -self._settings.max_output_length]

    def on_death(self, death: Death) -> None:
        """Say what was lost, and have a new Python ready."""
        cell = self._cell if self._cell and self._cell.language == death.language else None
        if comes_back := self._states.died(death.pid, death.language, starve=self._starved):
            death = replace(
                death, kept=f"{comes_back} What changed since is lost; files and the other languages are kept."
            )
        self._starved = False
        if not death.ready and not (cell and cell.stop):
            self._on_no_start(death)
        elif cell is not None and death.done is not None and death.done["id"] == cell.id:
            self._end_cell(cell, death.done)
        elif cell is not None:
            self._on_crash(cell, death)
        elif death.done is None:
            text = f"The {NAMES[death.language]} process ended between two cells with {death.cause}. {death.kept}\n"
            self.on_printed(death.language, "stderr", text.encode())
        if death.language == "python" and death.ready and not self._closing:
            self._crew.restart("python")

    def is_stopping(self, language: Language) -> bool:
        """Whether the cell under way is of that language and has been asked to stop."""
        return self._cell is not None and self._cell.language == language and self._cell.stop is not None

    def _own_cell(self, worker: Worker, execution_id: str) -> Cell | None:
        """One outstanding id: whatever names another one is stale or forged, and is ignored."""
        cell = self._cell
        return cell if cell and cell.id == execution_id and cell.language == worker.language and cell.sent else None

    def _end_cell(self, cell: Cell, done: channel.Done) -> None:
        cell.notices.extend(done["notices"])
        cell.variables = done["variables"]
        error = done["error"]
        if cell.stop:
            self._conclude_stop(cell, error, kept=True)
            return
        if error and cell.language == "javascript":
            error["hint"] = javascript_hint(error["message"], error["traceback"])
        elif cell.language == "bash" and done["status"] == "error":
            # bash knows no error but its exit status
            cell.notices.extend(filter(None, [bash_hint(cell.stderr.latest().decode("utf-8", "replace"))]))
        self._finish(cell, done["status"], done["return_code"], error)

    def _on_crash(self, cell: Cell, death: Death) -> None:
        name = NAMES[death.language]
        if cell.stop:
            cell.replaced = f"{cell.stop}: {death.cause}"
            cell.notices.append(f"The {name} process did not stop by itself and was ended. {death.kept}")
            self._conclude_stop(cell, None, kept=False)
            return
        cell.replaced = death.cause
        code = 128 - death.code if death.code < 0 else death.code
        cell.notices.append(f"The {name} process ended with {death.cause}. {death.kept}")
        if death.code == -signal.SIGXCPU:
            cell.limits.append("cpu")
        if death.code == -signal.SIGABRT and b"heap out of memory" in cell.stderr.latest():
            # V8's own limit, which lies below the session's
            cell.limits.append("memory")
            self._finish(cell, "memory", code)
            return
        self._finish(cell, "crashed", code)

    def _on_no_start(self, death: Death) -> None:
        said = b"".join(bytes(text) for key, text in self._background.items() if key[0] == death.language)
        if not self._announced:
            text = said.decode("utf-8", "replace")[-2000:].strip()
            self._line.tell({"event": "failed", "message": f"Python did not start ({death.cause}). {text}"})
            self._closing = True
        elif cell := self._cell:
            cell.notices.append(f"The {NAMES[death.language]} process did not start ({death.cause}). Try again.")
            self._finish(cell, "crashed", 1)


def lead(
    server: socket.socket,
    *,
    folder: int,
    uid: int | None,
    settings: Settings,
    programs: Callable[[Path], dict[Language, Program]],
    sandbox: Sandbox,
) -> NoReturn:
    """Be the leader of a session, in a process just forked from the zygote. `folder` is a handle on what is `uid`'s."""
    # nothing here makes cycles worth a collection, and a collection would touch, so copy, shared pages
    gc.disable()
    try:
        guard = Guard(sandbox, os.readlink(f"/proc/self/fd/{folder}"), uid=uid)
        os.close(folder)
        workspace = Workspace(
            guard.folder,
            max_bytes=settings.session_disk_mb << 20,
            max_files=settings.session_files,
            proc=guard.proc,
        )
        Leader(
            server,
            workspace=workspace,
            settings=settings,
            programs=programs(Path(guard.folder)),
            guard=guard,
        ).run()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            server.settimeout(1)
            server.sendall(wire.encode({"event": "failed", "message": f"the session's leader failed: {error!r}"}))
    finally:
        os._exit(71)
