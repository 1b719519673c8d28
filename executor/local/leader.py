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
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from executor.errors import Busy, ExecutorError
from executor.languages import channel
from executor.local import wire
from executor.local.cell import StopReason
from executor.local.crew import Crew, Death
from executor.local.execution import Execution
from executor.local.guard import Guard
from executor.local.journal import Journal
from executor.local.line import Line
from executor.local.loop import Loop
from executor.local.saving import State
from executor.local.states import States
from executor.local.transfers import Transfers
from executor.local.worker import Program, Worker
from executor.local.workspace import Workspace
from executor.results import Language
from executor.sandbox.confinement import Sandbox
from executor.settings import Settings

MAX_SAID = 2000
"""Characters of an error that the server is told."""


class Leader:
    """One session: its line to the server, its workspace, its crew. Implements `crew.Listener`."""

    def __init__(
        self,
        server: socket.socket,
        *,
        workspace: Workspace,
        settings: Settings,
        programs: dict[Language, Program],
        guard: Guard,
        journal: Journal,
    ) -> None:
        self._workspace = workspace
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
            running=lambda: cell.language if (cell := self._execution.cell) else None,
        )
        self._execution = Execution(
            line=self._line,
            workspace=workspace,
            settings=settings,
            crew=self._crew,
            guard=guard,
            states=self._states,
            journal=journal,
        )
        self._transfers = Transfers(workspace, max_file=settings.max_upload_mb << 20)
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
        due = min(
            self._execution.next_step(), self._guard.next_look(), self._crew.next_check(), self._states.next_step()
        )
        return max(0.0, due - time.monotonic())

    def _tick(self, now: float) -> None:
        self._execution.step(now)
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
                self._execution.start(frame)
            case "interrupt":
                self._execution.interrupt(frame["id"])
            case "close":
                self._closing = True
            case "relieve":
                self._guard.give_way(frame["budget"])
                self._over("memory")
            case "save":
                self._answer_later(frame["request"], partial(self._states.save, frame["limit"], frame["final"]))
                self._line.tell({"event": "saving"})
            case "restore":
                self._execution.count_on(frame["numbers"])
                self._answer_later(
                    frame["request"], partial(self._states.restore, frame["languages"], frame["numbers"])
                )
            case "stats":
                self._answer(frame["request"], self._stats)
            case "activity":
                self._answer(frame["request"], self._activity)
            case "printed":
                self._answer(frame["request"], lambda: self._execution.printed(frame["id"]))
            case "tree" | "pack" | "read":
                self._answer(frame["request"], lambda: self._give(frame))
            case _:
                self._answer(frame["request"], lambda: self._transfers.carry_out(frame))

    def _give(self, frame: dict[str, Any]) -> dict[str, Any]:
        piece, more = self._transfers.give(frame)
        self._line.write(wire.encode_chunk(frame["request"], piece))
        return {"more": more}

    def _answer(self, request: int, act: Callable[[], dict[str, Any] | None]) -> None:
        """Send what `act` gives, or the error that it raises; None is answered later."""
        try:
            if (reply := act()) is not None:
                self._line.tell({"reply": request, **reply})
            return
        except ExecutorError as error:
            kind, said = type(error).__name__, str(error)
        except OSError as error:
            kind, said = "FileRefused", f"The file system refused: {error.strerror or error}."
        except Exception as error:
            # whatever a guest's folder made of it, the session is worth more than an answer
            kind, said = "BackendFailed", f"It failed: {error!r}"
        self._line.tell({"reply": request, "error": kind, "message": said[:MAX_SAID]})

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

    def _activity(self) -> dict[str, Any]:
        return {"background": self._guard.background(), "rests": self._states.rests()}

    # What must happen without being asked for

    def _over(self, limit: StopReason) -> None:
        if limit == "memory" and self._states.give_way():
            return  # the copies that were made to save it are gone; the next look tells whether that was all
        if self._execution.stop_for(limit):
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
            self._execution.on_ready(worker)

    def on_restored(self, worker: Worker, event: channel.Restored) -> None:
        """It has its state, or goes on without."""
        self._states.on_restored(worker, event)
        self._execution.on_ready(worker)

    def on_display(self, worker: Worker, event: channel.Display) -> None:
        """It belongs to the cell."""
        self._execution.on_display(worker, event)

    def on_done(self, worker: Worker, event: channel.Done) -> None:
        """It ends the cell."""
        self._execution.on_done(worker, event)

    def on_printed(self, language: Language, stream: str, data: bytes) -> None:
        """It is the cell's, or of background work."""
        self._execution.on_printed(language, stream, data)

    def on_death(self, death: Death) -> None:
        """Say what was lost, and have a new Python ready."""
        if comes_back := self._states.died(death.pid, death.language, starve=self._starved):
            death = replace(
                death, kept=f"{comes_back} What changed since is lost; files and the other languages are kept."
            )
        self._starved = False
        if not (self._announced or death.ready or self.is_stopping(death.language)):
            said = self._execution.said(death.language)
            self._line.tell({"event": "failed", "message": f"Python did not start ({death.cause}). {said}"})
            self._closing = True
        else:
            self._execution.on_death(death)
        if death.language == "python" and death.ready and not self._closing:
            self._crew.restart("python")

    def is_stopping(self, language: Language) -> bool:
        """Whether the cell under way is of that language and has been asked to stop."""
        return self._execution.is_stopping(language)


def lead(
    server: socket.socket,
    *,
    folder: int,
    uid: int | None,
    settings: Settings,
    programs: Callable[[Path], dict[Language, Program]],
    sandbox: Sandbox,
    journal: Journal,
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
            journal=journal,
        ).run()
    except BaseException as error:
        with contextlib.suppress(BaseException):
            server.settimeout(1)
            server.sendall(wire.encode({"event": "failed", "message": f"the session's leader failed: {error!r}"}))
    finally:
        os._exit(71)
