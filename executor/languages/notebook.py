"""One Python worker at work: takes cells from the channel, runs them, sends what they show and how they ended."""

from __future__ import annotations

import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from executor.languages import figures
from executor.languages.cells import Cells
from executor.languages.channel import MAX_NAMES, ErrorData, LostName, VariableData
from executor.languages.control import Control
from executor.languages.displays import Displays
from executor.languages.guest import (
    Streams,
    import_paths,
    refresh_imports,
    report_threads,
    settle_in,
    settle_interpreter,
    signal_core,
)
from executor.languages.hints import hint_for
from executor.languages.pictures import Plots
from executor.languages.shell import NotebookShell
from executor.languages.state import State
from executor.languages.traceback import cell_name
from executor.languages.variables import Variables

INTERRUPTED_DRAWING = 0.4
"""Seconds for the figures of an interrupted cell: the hard stop is near."""

_signal = signal_core.signal
_mask = signal_core.pthread_sigmask
_raise_interrupt = signal.default_int_handler
_exit = os._exit
_DEFERRED = frozenset(
    int(number)
    for number in signal.valid_signals()
    - {signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP}
    - {signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS}
)
"""Signals whose handlers, the guest's, run only while its code does: they may raise."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What of a worker is made before the fork: memory that workers share until they write to it."""

    shell: NotebookShell
    cells: Cells
    displays: Displays
    variables: Variables


class Notebook:
    """The loop of one worker. `run` never returns; nothing that a cell raises ends it."""

    def __init__(self, parts: Parts, control: Control, folder: Path) -> None:
        self._shell = shell = parts.shell
        self._control = control
        self._folder = folder
        self._import_paths = import_paths(str(folder))
        self._streams = Streams()
        self._cells = parts.cells
        self._displays = parts.displays
        self._variables = parts.variables
        self._state = State(shell, folder, self._variables.cells.copy)
        self._tell_variables = True
        self._interrupt_waits = False
        self._displays.connect(control, Plots(folder))
        shell.tracebacks.folder = folder
        warnings.formatwarning = shell.tracebacks.format_warning
        report_threads(lambda error: shell.tracebacks.describe(error)["traceback"])
        os.register_at_fork(after_in_child=control.detach)
        _signal(signal.SIGINT, self._hold)
        _mask(signal.SIG_BLOCK, _DEFERRED)

    def run(self) -> NoReturn:
        """Serve cells until the leader hangs up."""
        self._control.send({"event": "ready"})
        while True:
            message = self._control.receive()
            if message["op"] != "execute":
                self._keep_state(message)
                continue
            self._tell_variables = bool(message["variables"])
            self._execute(
                str(message["id"]),
                str(message["code"]),
                int(message["number"]),
                int(message["picture_chars"]),
            )

    def _execute(self, execution_id: str, code: str, number: int, picture_chars: int) -> None:
        failure = None
        try:
            failure = self._attempt(execution_id, code, number, picture_chars)
        except BaseException as error:  # a handler of the guest's, in a thread that does not defer its signal
            failure = error
        self._control.taken = self._interrupt_waits = False
        self._finish(execution_id, number, failure)

    def _attempt(self, execution_id: str, code: str, number: int, picture_chars: int) -> BaseException | None:
        displays = self._displays
        displays.begin(execution_id, picture_chars)
        refresh_imports(self._import_paths)
        failure = self._guarded(lambda: self._cells.run(code, number))
        if self._control.detached:
            self._leave(failure, number)
        if figures.any_open():
            seconds = INTERRUPTED_DRAWING if isinstance(failure, KeyboardInterrupt) else None
            late = self._guarded(lambda: displays.end(seconds=seconds))
            failure = failure or late
        return failure

    def _keep_state(self, message: Mapping[str, Any]) -> None:
        """Save the state, which nothing tells of but the file, or take one over."""
        self._control.taken = self._interrupt_waits = False
        path = str(message["path"])
        if message["op"] == "save":
            without = [str(name) for name in message["without"]]
            self._state.save(path, limit=int(message["limit"]), without=without, fork=bool(message["fork"]))
            return
        names: list[str] = []
        lost: list[LostName] = []
        problem = "The saved state could not be loaded."
        cells: dict[str, int] = {}

        def load() -> None:
            nonlocal names, lost, problem, cells
            with self._streams.silent():
                names, lost, problem, cells = self._state.restore(path)

        self._guarded(load)
        self._variables.adopt(cells)
        event = {"event": "restored", "id": str(message["id"]), "problem": problem}
        self._control.send(event | {"names": names[:MAX_NAMES], "lost": lost[:MAX_NAMES]})
        self._control.flush()

    def _guarded(self, work: Callable[[], None]) -> BaseException | None:
        """Run guest code with SIGINT raising KeyboardInterrupt; returns what it raised."""
        failure: BaseException | None = None
        try:
            _signal(signal.SIGINT, _raise_interrupt)
            _mask(signal.SIG_UNBLOCK, _DEFERRED)
            if self._interrupt_waits:
                self._interrupt_waits = False
                raise KeyboardInterrupt
            work()
        except BaseException as error:
            failure = error
        while True:
            try:
                _signal(signal.SIGINT, self._hold)
                _mask(signal.SIG_BLOCK, _DEFERRED)
            except BaseException as error:
                failure = failure or error
            else:
                return failure

    def _hold(self, signum: int, frame: FrameType | None) -> None:
        """SIGINT outside of guest code: it means the cell that was handed over and has not begun, or nobody."""
        if self._control.has_work():
            self._interrupt_waits = True

    def _finish(self, execution_id: str, number: int, failure: BaseException | None) -> None:
        displays = self._displays
        status, error = "ok", None
        variables: list[VariableData] = []
        try:
            status, error = self._judge(failure, number)
            displays.finish()
            for sentence in (*settle_interpreter(), *self._streams.settle()):
                displays.note(sentence)
            if self._tell_variables:
                variables = self._variables.changes(number)
        except BaseException as fault:
            displays.note(f"The end of the cell was disturbed: {type(fault).__name__}.")
        done = {
            "event": "done",
            "id": execution_id,
            "status": status,
            "error": error,
            "return_code": 0 if status == "ok" else 1,
            "notices": displays.notices[:50],
            "variables": variables,
        }
        while True:
            try:
                self._control.send(done)
            except ValueError:
                done["error"], done["notices"] = None, ["The cell's error could not be sent."]
                continue
            except BaseException:  # noqa: S110  a guest's signal handler; the frame is queued and `flush` sends it
                pass
            break
        self._control.flush()

    def _judge(self, failure: BaseException | None, number: int) -> tuple[str, ErrorData | None]:
        if failure is None:
            return "ok", None
        error = self._shell.tracebacks.describe(failure, cell_name(number))
        error["hint"] = hint_for(failure, self._folder)
        if isinstance(failure, KeyboardInterrupt):
            error["message"] = error["message"] or "the cell was interrupted; variables are kept"
            return "interrupted", error
        if isinstance(failure, SystemExit):
            self._displays.note("The cell ended itself with exit(); the session and its variables are kept.")
            if failure.code is None or failure.code == 0:
                return "ok", None
            if isinstance(failure.code, int):
                error["message"] = f"exit code {failure.code}"
        return "error", error

    def _leave(self, failure: BaseException | None, number: int) -> NoReturn:
        """End a process that guest code forked and that has come to the end of the cell."""
        code = 0
        try:
            if isinstance(failure, SystemExit):
                code = failure.code if isinstance(failure.code, int) else int(failure.code is not None)
            elif failure is not None:
                code = 1
                sys.stderr.write(self._shell.tracebacks.describe(failure, cell_name(number))["traceback"] + "\n")
            self._streams.settle()
        finally:
            _exit(code & 0xFF)


def serve(parts: Parts, control: socket.socket, folder: Path) -> NoReturn:
    """Settle in this process and be a worker until the leader hangs up."""
    settle_in(str(folder))
    Notebook(parts, Control(control), folder).run()
