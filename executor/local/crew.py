"""Crew: the workers of a session, one a language, started on first use and replaced when they die."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from executor.errors import BackendFailed
from executor.languages import channel
from executor.languages.channel import ProtocolError
from executor.local.guard import Guard
from executor.local.loop import Loop
from executor.local.worker import Program, Worker
from executor.results import Language

DYING = 1.0
"""Seconds in which a worker that has hung up must have ended."""

_LAST_READS = 32
"""Reads of a dead worker's socket, several times what it holds: a process left behind may write on for ever."""

NAMES: dict[Language, str] = {"python": "Python", "javascript": "JavaScript", "bash": "bash"}

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


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended: `done` where that was in order and tells how its cell ended, else a crash.

    `kept` says what of its state lives on.
    """

    pid: int
    language: Language
    code: int
    ready: bool
    done: channel.Done | None
    kept: str

    @property
    def cause(self) -> str:
        """Its exit code or signal, in words."""
        if self.code < 0:
            return f"signal {-self.code} ({_SIGNALS.get(-self.code, 'no further reason')})"
        return f"exit code {self.code}"


class Listener(Protocol):
    """Who hears what the workers say and print: the leader."""

    def on_ready(self, worker: Worker) -> None:
        """A worker can take its first cell."""

    def on_display(self, worker: Worker, event: channel.Display) -> None:
        """A cell displayed a value."""

    def on_restored(self, worker: Worker, event: channel.Restored) -> None:
        """A worker has taken over a saved state, or failed to."""

    def on_done(self, worker: Worker, event: channel.Done) -> None:
        """A cell ended; all that it printed was heard before."""

    def on_printed(self, language: Language, stream: str, data: bytes) -> None:
        """Bytes came out of a worker or of what it started."""

    def on_death(self, death: Death) -> None:
        """A worker ended, and is out of the crew."""

    def is_stopping(self, language: Language) -> bool:
        """Whether a cell of that language has been asked to stop."""


class Crew:
    """Starts, hears, kills and buries the workers of one session."""

    def __init__(
        self, programs: dict[Language, Program], folder: Path, *, guard: Guard, loop: Loop, listener: Listener
    ) -> None:
        self._programs = programs
        self._folder = folder
        self._guard = guard
        self._loop = loop
        self._listener = listener
        self._workers: dict[Language, Worker] = {}
        self._hung_up: dict[int, float] = {}

    def worker(self, language: Language) -> Worker:
        """The language's worker, started if need be. Raises OSError or BackendFailed."""
        if worker := self._workers.get(language):
            return worker
        worker = Worker(
            self._programs[language],
            self._folder,
            entrance=self._guard.entrance(language),
            parent=self._guard.worker_parent,
        )
        self._workers[language] = worker
        self._guard.worker_started(worker.pid)
        self._loop.add(worker.control.fileno(), partial(self._on_control, worker))
        for fd, stream in worker.pipes.items():
            self._loop.add(fd, partial(self._on_pipe, worker, fd, stream))
        if worker.listener is not None:
            self._loop.add(worker.listener, partial(self._on_question, worker.listener))
        return worker

    def known(self, language: Language) -> Worker | None:
        """The language's worker, if it lives."""
        return self._workers.get(language)

    def send(self, worker: Worker, data: bytes) -> None:
        """Write to a worker, as soon as it takes it."""
        self._loop.want_room(worker.control.fileno(), not worker.send(data))

    def kill(self, language: Language) -> None:
        """End a worker and what it started; its death is heard of later."""
        if worker := self._workers.get(language):
            self._guard.kill(worker.pid)

    def kill_all(self) -> None:
        """End every worker and what it started."""
        for worker in self._workers.values():
            self._guard.kill(worker.pid)

    def next_check(self) -> float:
        """When `check` is due, monotonic seconds."""
        return min(self._hung_up.values(), default=float("inf"))

    def check(self, now: float) -> None:
        """Kill who has hung up and does not end."""
        for pid in [pid for pid, end in self._hung_up.items() if now >= end]:
            del self._hung_up[pid]
            self._guard.kill(pid)

    def drain(self, worker: Worker) -> None:
        """Hear what lies in a worker's pipes now."""
        for fd, stream in worker.pipes.items():
            # twice what a pipe holds: a background writer must not keep us here
            for _ in range(32):
                try:
                    data = os.read(fd, 1 << 16)
                except OSError:
                    break
                if not data:
                    break
                self._listener.on_printed(worker.language, stream, data)

    def reap(self) -> set[int]:
        """Bury every child that has ended; their process ids."""
        ended: set[int] = set()
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ended
            if pid == 0:
                return ended
            ended.add(pid)
            for worker in tuple(self._workers.values()):
                if worker.pid == pid:
                    self._bury(worker, os.waitstatus_to_exitcode(status))

    def _on_control(self, worker: Worker, readable: bool, room: bool) -> None:
        if room:
            self._loop.want_room(worker.control.fileno(), not worker.flush())
        data = worker.receive() if readable else None
        if data is None:
            return
        if not data:
            # it is dying by itself, or has closed its end and can be of no more use
            self._loop.remove(worker.control.fileno())
            self._hung_up[worker.pid] = time.monotonic() + DYING
            return
        self._hear(worker, data)

    def _hear(self, worker: Worker, data: bytes) -> bool:
        """Tell what a worker sent; False where it was nonsense, which costs it its life."""
        try:
            events = worker.speaker.feed(data)
        except ProtocolError:
            self._guard.kill(worker.pid)
            return False
        for event in events:
            if event["event"] == "ready":
                if worker.ready:
                    # once is all that an honest one says it, and every time costs a look at the folder
                    self._guard.kill(worker.pid)
                    return False
                worker.ready = True
                self._listener.on_ready(worker)
            elif event["event"] == "display":
                self._listener.on_display(worker, event)
            elif event["event"] == "restored":
                self._listener.on_restored(worker, event)
            else:
                self.drain(worker)
                self._listener.on_done(worker, event)
        return True

    def _on_pipe(self, worker: Worker, fd: int, stream: str, *_: bool) -> None:
        try:
            data = os.read(fd, 1 << 16)
        except BlockingIOError:
            return
        if data:
            self._listener.on_printed(worker.language, stream, data)
        else:
            self._loop.remove(fd)

    def _on_question(self, listener: int, *_: bool) -> None:
        if not self._guard.answer(listener):
            self._loop.remove(listener)

    def _bury(self, worker: Worker, code: int) -> None:
        del self._workers[worker.language]
        self._hung_up.pop(worker.pid, None)
        # what it said before it died still counts, a result above all
        for _ in range(_LAST_READS):
            if not (data := worker.receive()) or not self._hear(worker, data):
                break
        self.drain(worker)
        for fd in worker.descriptors():
            self._loop.remove(fd)
        done = None
        if worker.ready:
            done = worker.speaker.after_exit(code, interrupted=self._listener.is_stopping(worker.language))
        # a shell that exits leaves its jobs alone; what dies takes along what it had started
        self._guard.worker_ended(worker.pid, alone=done is not None)
        worker.close()
        self._listener.on_death(Death(worker.pid, worker.language, code, worker.ready, done, worker.speaker.kept()))

    def restart(self, language: Language) -> None:
        """Start a worker ahead of need; where that fails, the next cell tries again and says so."""
        with contextlib.suppress(OSError, BackendFailed):
            self.worker(language)
