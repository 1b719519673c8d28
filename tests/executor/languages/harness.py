"""Plays the leader for one interpreter: starts its process, pumps its pipes and its control channels, keeps a clock."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from executor.languages.channel import Done, Event, Interpreter

# Puts descriptors where the interpreter wants them and executes it: fork and dup2, as a leader does it, but outside of
# the test process, whose own descriptors stay as they are.
LAUNCH = """
import fcntl, os, signal, sys
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
pairs = [tuple(map(int, pair.split(":"))) for pair in sys.argv[1].split(",")]
free = max(map(max, pairs)) + 1
high = [(fcntl.fcntl(held, fcntl.F_DUPFD_CLOEXEC, free), wanted) for held, wanted in pairs]
os.closerange(3, free)
for held, wanted in high:
    os.dup2(held, wanted)
os.execv(sys.argv[2], sys.argv[2:])
"""


def wait_for(*paths: Path, seconds: float = 10) -> None:
    """Wait until all of them are there. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while missing := [path for path in paths if not path.exists()]:
        if time.monotonic() > until:
            raise TimeoutError(f"not there after {seconds} s: {missing}")
        time.sleep(0.01)


@dataclass
class Cell:
    """What one cell gave."""

    events: list[Event] = field(default_factory=list)
    stdout: bytes = b""
    stderr: bytes = b""
    stdout_bytes: int = 0
    seconds: float = 0.0
    exited: int | None = None

    @property
    def out(self) -> str:
        return self.stdout.decode(errors="replace")

    @property
    def err(self) -> str:
        return self.stderr.decode(errors="replace")

    @property
    def done(self) -> Done:
        for event in self.events:
            if event["event"] == "done":
                return event
        raise AssertionError(f"the cell did not end: exited={self.exited}, {self.out!r}, {self.err!r}, {self.events}")

    @property
    def shown(self) -> list[dict[str, Any]]:
        return [dict(event) for event in self.events if event["event"] == "display"]

    @property
    def value(self) -> str | None:
        texts = [event["data"]["text/plain"] for event in self.shown if event["is_result"]]
        return texts[0] if texts else None


class Leader:
    """A process of `interpreter` with `folder` as working directory, HOME and TMPDIR."""

    def __init__(self, interpreter: Interpreter, folder: Path) -> None:
        self.interpreter = interpreter
        self.folder = folder
        (folder / ".tmp").mkdir(exist_ok=True)
        self.number = 0
        self.start()

    def start(self) -> None:
        pairs = [socket.socketpair() for _ in self.interpreter.CONTROL]
        self.control = pairs[0][0]
        self.held = [ours for ours, _ in pairs]
        wiring = ",".join(
            f"{theirs.fileno()}:{n}" for (_, theirs), n in zip(pairs, self.interpreter.CONTROL, strict=True)
        )
        environment = {
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder / ".tmp"),
            "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
            "LANG": "C.UTF-8",
            **self.interpreter.environment(),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", LAUNCH, wiring, *self.interpreter.command()],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=[theirs.fileno() for _, theirs in pairs],
            start_new_session=True,
        )
        for _, theirs in pairs:
            theirs.close()
        self.control.setblocking(False)
        self.pump(lambda cell: any(event["event"] == "ready" for event in cell.events))

    def pump(
        self,
        until: Callable[[Cell], bool],
        *,
        outgoing: bytes = b"",
        at: tuple[float, Callable[[], None]] | None = None,
        once: Path | None = None,
        seconds: float = 30,
    ) -> Cell:
        """Move bytes until `until` holds or the process ends; `at` is something to do after so many seconds, which
        count from the moment when `once` is there."""
        cell = Cell()
        begun = time.monotonic()
        since = 0.0
        out, err = self.process.stdout, self.process.stderr
        assert out is not None
        assert err is not None
        open_ends = {out.fileno(), err.fileno(), self.control.fileno()}
        while not until(cell):
            now = time.monotonic() - begun
            if now > seconds:
                raise TimeoutError(f"no end after {seconds} s: {cell.out[-500:]!r} {cell.err[-500:]!r} {cell.events}")
            if at is not None and once is not None and not once.exists():
                since = now
            elif at is not None and now >= since + at[0]:
                at[1]()
                at = None
            # the end of the process, not of the pipe: background jobs keep pipes open
            if self.process.poll() is not None and not select.select(list(open_ends), [], [], 0.05)[0]:
                break
            readable, writable, _ = select.select(
                list(open_ends), [self.control] if outgoing and self.control.fileno() in open_ends else [], [], 0.02
            )
            if writable:
                try:
                    outgoing = outgoing[self.control.send(outgoing[:65536]) :]
                except OSError:
                    outgoing = b""
            # the pipes before the channel: whatever a cell wrote before its `done` is there already
            for end in sorted(readable, key=lambda end: end == self.control.fileno()):
                self._take(cell, end, open_ends)
        self._drain(cell, open_ends)
        cell.seconds = time.monotonic() - begun
        if self.process.poll() is not None and not until(cell):
            cell.exited = self.process.returncode
        return cell

    def _drain(self, cell: Cell, open_ends: set[int]) -> None:
        pipes = [end for end in open_ends if end != self.control.fileno()]
        while readable := select.select(pipes, [], [], 0)[0]:
            for end in readable:
                self._take(cell, end, open_ends)
            pipes = [end for end in pipes if end in open_ends]

    def _take(self, cell: Cell, end: int, open_ends: set[int]) -> None:
        try:
            data = os.read(end, 65536)
        except ConnectionResetError:
            data = b""
        if not data:
            open_ends.discard(end)
        elif end == self.control.fileno():
            cell.events += self.interpreter.feed(data)
        elif self.process.stdout is not None and end == self.process.stdout.fileno():
            cell.stdout_bytes += len(data)
            cell.stdout += data
            if len(cell.stdout) > 8_000_000:
                cell.stdout = cell.stdout[-1_000_000:]
        else:
            cell.stderr = (cell.stderr + data)[-1_000_000:]

    def run(
        self, code: str, *, interrupt_after: float | None = None, once: Path | None = None, seconds: float = 30
    ) -> Cell:
        """Execute one cell to its end, or to the end of the process; `interrupt_after` counts from `once` on."""
        self.number += 1
        name = f"e{self.number}"
        at = (interrupt_after, self.interrupt) if interrupt_after is not None else None
        return self.pump(
            lambda cell: any(event["event"] == "done" and event["id"] == name for event in cell.events),
            outgoing=self.interpreter.execute(name, code, self.number),
            at=at,
            once=once,
            seconds=seconds,
        )

    def interrupt(self) -> None:
        """The soft stop, as a leader does it."""
        if (frame := self.interpreter.interrupt()) is not None:
            self.control.send(frame)
        if self.interpreter.interrupt_target == "foreground":
            os.killpg(self.process.pid, signal.SIGINT)
        elif self.interpreter.interrupt_target == "worker":
            os.kill(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        """End the process and all that it started in its session."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()
        for end in self.held:
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
