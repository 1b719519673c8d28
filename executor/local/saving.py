"""Saving: one order to have interpreters of a session write their state into its folder, and to try what they wrote.

A state file is the guest's own doing, so it is loaded in a worker and nowhere else: once by way of trial, in a clean
one that is thrown away, before it takes the place of the former file. Names that turn out not to load are left out of
a second attempt, and named. All of it goes on beside the cells: an interpreter is asked when it is idle, and copies
itself; a limit that is hit meanwhile ends the saving, never the guest's work.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from executor.errors import BackendFailed, Busy, ExecutorError
from executor.languages import channel, checks
from executor.languages.bash import Bash
from executor.languages.channel import ProtocolError, StateHead
from executor.local.archive import open_inside, parent_of
from executor.local.crew import NAMES, Crew
from executor.local.guard import Guard
from executor.local.loop import Loop
from executor.local.worker import Program, Worker
from executor.local.workspace import Workspace
from executor.results import Language

STATE_FOLDER = ".state"
LATER = "what changed between cells"

ATTEMPTS = 3
DUMP_SECONDS = 20.0
SHELL_SECONDS = 2.0
TRIAL_SECONDS = 20.0
QUICK, SLOW = 0.002, 0.02
"""Seconds between two looks for the file, at first and later."""

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY

_ENDED = "The {} process ended. What the next one starts from is saved already, or there is nothing."

Pauses = Generator[float, None, "State"]
"""Yields seconds to wait before it goes on."""


class State:
    """What a language's state file holds, or why there is none (`problem`)."""

    def __init__(self, language: Language, head: StateHead | None, problem: str = "", *, cell: int = 0) -> None:
        self.language = language
        self.head = head
        self.problem = problem
        self.cell = cell
        self.at = time.monotonic()

    def but(self, failure: Exception) -> State:
        """This state, where what changed in it by itself since could not be saved, too."""
        assert self.head is not None
        lost = [name for name in self.head.lost if name["name"] != LATER]
        lost.append(
            {"name": LATER, "type": "background work", "reason": f"could not be saved: {failure}", "cell": None}
        )
        state = State(self.language, replace(self.head, lost=tuple(lost)), cell=self.cell)
        state.at = self.at
        return state

    def to_json(self) -> dict[str, Any]:
        """As the server reads it."""
        head = self.head
        return {
            "language": self.language,
            "names": list(head.names) if head else [],
            "lost": [dict(lost) for lost in head.lost] if head else [],
            "problem": self.problem,
        }


def state_path(language: Language) -> str:
    """Where the state of a language lies, relative to the session's folder."""
    return f"{STATE_FOLDER}/{language}"


def read_head(workspace: Workspace, path: str) -> StateHead | None:
    """The head of a state file; None where there is no such file. Raises ProtocolError for one that is none."""
    try:
        with parent_of(workspace, path.split("/")) as (folder, name):
            fd = open_inside(name, _READ, folder, workspace)
    except OSError:
        return None
    try:
        data = os.read(fd, channel.STATE_HEAD)
    except OSError:
        return None
    finally:
        os.close(fd)
    line, end, _ = data.partition(b"\n")
    if not end:
        raise ProtocolError("The file has no head.")
    return checks.state_head(line)


def remove(workspace: Workspace, path: str) -> None:
    """Delete a state file, whatever it is."""
    with contextlib.suppress(OSError), parent_of(workspace, path.split("/")) as (folder, name):
        os.unlink(name, dir_fd=folder)


class Saving:
    """One save under way. `done` is called with the states, once; `step` goes on with it."""

    def __init__(
        self,
        languages: Sequence[tuple[Language, int]],
        *,
        limit: int,
        workspace: Workspace,
        crew: Crew,
        guard: Guard,
        loop: Loop,
        programs: dict[Language, Program],
        busy: Callable[[Language], bool],
        done: Callable[[list[State] | ExecutorError], None],
        again: Mapping[Language, State] = MappingProxyType({}),
    ) -> None:
        """Begin to save `languages`, each with the number of its last cell; `busy` tells whether one runs a cell.

        In those of them that are in `again` no cell ran since that state was saved: it stays where that fails.
        """
        self._workspace = workspace
        self._crew = crew
        self._guard = guard
        self._loop = loop
        self._programs = programs
        self._limit = limit
        self._busy = busy
        self._again = again
        self._done = done
        self._copied: tuple[int, float] | None = None
        self._trial: Worker | None = None
        self._events: list[channel.Event] = []
        self._ended: set[int] = set()
        self.over = False
        self.next = 0.0
        self._work = self._all(languages)
        self._stopped = ""

    def step(self, now: float) -> None:
        """Go on, where it is time."""
        while not self.over and now >= self.next:
            try:
                self.next = now + next(self._work)
            except StopIteration as end:
                self.over = True
                self._done(end.value)
            except Busy as busy:
                self.over = True
                self._done(busy)
            except Exception as error:
                # whatever it is, the session is worth more than its snapshot
                self.over = True
                self._done(BackendFailed(f"Saving failed: {error!r}"))

    def hurry(self) -> None:
        """Something happened that it may have waited for."""
        self.next = 0.0

    def stop(self, why: str) -> None:
        """Give up what is not saved yet, and end the processes that are at it."""
        self._stopped = why
        self._end_copies()
        self._end_trial()
        self.hurry()

    def reaped(self, pids: set[int]) -> None:
        """Children of ours have ended."""
        if self._trial is not None and self._trial.pid in pids:
            self._ended.add(self._trial.pid)
            self._let_go(self._trial)
            self.hurry()

    # The work, language by language

    def _all(self, languages: Sequence[tuple[Language, int]]) -> Generator[float, None, list[State]]:
        states = []
        for language, cell in languages:
            state = yield from self._one(language, cell)
            states.append(state)
        return states

    def _shell(self, cell: int) -> Pauses:
        """A shell writes its state by itself, a moment after it has said that a cell is done."""
        shell = self._programs["bash"].interpreter()
        assert isinstance(shell, Bash)
        until = time.monotonic() + SHELL_SECONDS
        while shell.saved() != cell and self._crew.known("bash") is not None and time.monotonic() < until:
            if self._busy("bash"):
                raise Busy("bash is at work; its state is saved when it has ended.")
            yield SLOW
        return State("bash", shell.state(), cell=cell)

    def _one(self, language: Language, cell: int) -> Pauses:
        if language == "bash":
            return (yield from self._shell(cell))
        new = f"{state_path(language)}.new"
        without: list[str] = []
        lost: list[channel.LostName] = []
        died = False
        try:
            for _ in range(ATTEMPTS):
                try:
                    head = yield from self._dumped(language, new, without)
                finally:
                    self._guard.may_copy(None)
                if language != "python":
                    break
                try:
                    found = yield from self._tried(language, new)
                except _Died:
                    # a limit or a stray signal may have hit it; a state that kills whoever loads it does so again
                    if died:
                        raise
                    died = True
                    continue
                known = {name["name"] for name in head.lost}
                more = [name for name in found if name["name"] not in known]
                if not more:
                    break
                lost += more
                without += [name["name"] for name in more]
            else:
                raise _Failed("What was written could not be read again.")
            self._put_in_place(language)
        except (_Failed, Busy) as failure:
            former = self._again.get(language)
            if former is None and isinstance(failure, Busy):
                raise
            remove(self._workspace, new)
            if former is not None:
                return former.but(failure)
            # what is older than what could not be kept must not come back as if it were that
            remove(self._workspace, state_path(language))
            return State(language, None, str(failure), cell=cell)
        told = [name for name in head.lost if name["name"] not in without]
        return State(language, StateHead(head.names, (*told, *lost), "", head.versions), cell=cell)

    def _dumped(self, language: Language, path: str, without: list[str]) -> Generator[float, None, StateHead]:
        """The head of the file that the interpreter wrote."""
        room = self._room()
        if room < self._limit and language not in self._again:
            # the former one makes room; the store has it
            remove(self._workspace, state_path(language))
            room = self._room()
        for fork in (True, False):
            remove(self._workspace, path)
            worker = self._crew.known(language)
            if worker is None or not worker.ready:
                raise Busy(_ENDED.format(NAMES[language]))
            order = worker.speaker.save(path, limit=room, without=without, fork=fork)
            assert order is not None, "asked of nobody whose state lies in files already"
            if fork and language == "python":
                self._copied = worker.pid, time.monotonic()
                self._guard.may_copy(worker.pid)
            self._crew.send(worker, order)
            until = time.monotonic() + DUMP_SECONDS
            pause = QUICK
            while time.monotonic() < until:
                yield pause
                self._must_go_on()
                pause = min(1.5 * pause, SLOW)
                try:
                    head = read_head(self._workspace, path)
                except ProtocolError as error:
                    raise _Failed(f"What was written is no state: {error}") from None
                if head is not None:
                    self._copied = None
                    if head.problem:
                        raise _Failed(head.problem)
                    return head
                if self._crew.known(language) is not worker:
                    raise Busy(_ENDED.format(NAMES[language]))
            self._end_copies()
            if self._busy(language):
                raise Busy(f"{NAMES[language]} is at work; its state is saved when it has ended.")
        raise _Failed(f"It was not written within {DUMP_SECONDS:g} s.")

    def _end_copies(self) -> None:
        if self._copied is not None:
            self._guard.may_copy(None)
            self._guard.kill_copies(*self._copied)
            self._copied = None

    def _room(self) -> int:
        size, _ = self._workspace.usage()
        return min(self._limit, max(0, self._workspace.max_bytes - size))

    def _tried(self, language: Language, path: str) -> Generator[float, None, list[channel.LostName]]:
        """What is lost when a clean worker loads the file."""
        try:
            worker = Worker(
                self._programs[language],
                Path(self._workspace.root),
                entrance=self._guard.entrance(language),
                parent=self._guard.worker_parent,
            )
        except (OSError, BackendFailed) as error:
            raise _Failed(f"It could not be tried: {error}") from None
        self._trial = worker
        self._events = []
        self._guard.worker_started(worker.pid)
        self._loop.add(worker.control.fileno(), partial(self._on_control, worker))
        for fd in worker.pipes:
            self._loop.add(fd, partial(self._on_pipe, fd))
        if worker.listener is not None:
            self._loop.add(worker.listener, partial(self._on_question, worker.listener))
        try:
            until = time.monotonic() + TRIAL_SECONDS
            asked = False
            while time.monotonic() < until:
                yield 0.1
                self._must_go_on()
                for event in self._events:
                    if event["event"] == "ready" and not asked:
                        asked = True
                        worker.send(worker.speaker.restore("trial", path) or b"")
                    elif event["event"] == "restored":
                        if event["problem"]:
                            raise _Failed(event["problem"])
                        return event["lost"]
                self._events.clear()
                if worker.pid in self._ended:
                    raise _Died("The process that tried to load it again ended.")
            raise _Failed(f"It did not load again within {TRIAL_SECONDS:g} s.")
        finally:
            self._end_trial()

    def _put_in_place(self, language: Language) -> None:
        final = state_path(language)
        try:
            with parent_of(self._workspace, final.split("/")) as (folder, name):
                os.rename(f"{name}.new", name, src_dir_fd=folder, dst_dir_fd=folder)
        except OSError as error:
            raise _Failed(f"It could not be kept: {error.strerror or error}.") from None

    def _must_go_on(self) -> None:
        if self._stopped:
            raise _Failed(self._stopped)

    # The worker on trial

    def _on_control(self, worker: Worker, readable: bool, room: bool) -> None:
        data = worker.receive() if readable else None
        if data is None:
            return
        try:
            self._events += worker.speaker.feed(data)
        except ProtocolError:
            self._guard.kill_alone(worker.pid)
        if not data:
            self._loop.remove(worker.control.fileno())
        self.hurry()

    def _on_pipe(self, fd: int, *_: bool) -> None:
        try:
            if not os.read(fd, 1 << 16):
                self._loop.remove(fd)
        except BlockingIOError:
            return

    def _on_question(self, listener: int, *_: bool) -> None:
        if not self._guard.answer(listener):
            self._loop.remove(listener)

    def _end_trial(self) -> None:
        """Kill it; one that is still there after that is let go of when it has been reaped."""
        if (worker := self._trial) is None or worker.pid in self._ended:
            return
        self._guard.kill_alone(worker.pid)
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(worker.pid, os.WNOHANG)[0] == worker.pid:
                self._let_go(worker)

    def _let_go(self, worker: Worker) -> None:
        for fd in worker.descriptors():
            self._loop.remove(fd)
        self._guard.worker_ended(worker.pid, alone=True)
        worker.close()
        self._trial = None


class _Failed(Exception):
    """The state of one language could not be saved; a sentence."""


class _Died(_Failed):
    """The worker on trial has died."""
