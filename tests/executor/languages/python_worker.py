"""Plays the leader for Python workers: forks them from a small zygote, runs cells, reads events and output."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from executor.languages.channel import STATE_HEAD
from executor.languages.checks import state_head
from executor.languages.python import Python

ROOT = Path(__file__).parents[3]


@dataclass
class Cell:
    """What one cell gave."""

    displays: list = field(default_factory=list)
    done: dict | None = None
    out: str = ""
    err: str = ""
    seconds: float = 0.0

    @property
    def status(self):
        assert self.done, f"the worker ended; {self.out!r} {self.err!r}"
        return self.done["status"]

    @property
    def error(self):
        assert self.done, f"the worker ended; {self.out!r} {self.err!r}"
        return self.done["error"]

    @property
    def notices(self):
        return " ".join(self.done["notices"])

    @property
    def result(self):
        """The plain text of the last expression's value, None without one."""
        texts = [d["data"]["text/plain"] for d in self.displays if d["is_result"]]
        return texts[-1] if texts else None

    @property
    def texts(self):
        return [d["data"].get("text/plain") for d in self.displays]

    @property
    def pictures(self):
        return [d["picture"] for d in self.displays if d["picture"]]


class Worker:
    """A forked worker with its control socket and pipes."""

    def __init__(self, pid, control, out, err, folder):
        self.pid, self.folder = pid, folder
        self.control, self.pipes = control, {out: "out", err: "err"}
        self.speaker = Python()
        self.number = 0
        self.alive = True
        self.events = []

    def send(self, code, *, number=None, picture_chars=None):
        self.number = number or self.number + 1
        speaker = self.speaker if picture_chars is None else Python(picture_chars=picture_chars)
        self.control.sendall(speaker.execute(f"x{self.number}", code, self.number))
        return f"x{self.number}"

    def run(self, code, *, timeout=60.0, interrupt_after=None, **kwargs):
        """Run a cell to its end."""
        began = time.monotonic()
        execution_id = self.send(code, **kwargs)
        if interrupt_after is not None:
            time.sleep(interrupt_after)
            self.interrupt()
        cell = self.collect(execution_id, timeout=timeout)
        cell.seconds = time.monotonic() - began
        return cell

    def save(self, *, limit=1 << 30, without=(), fork=True, timeout=60.0):
        """Have the state saved and wait for the file; returns its head."""
        path = self.folder / ".state" / "python"
        path.unlink(missing_ok=True)
        self.control.sendall(self.speaker.save(".state/python", limit=limit, without=without, fork=fork))
        until = time.monotonic() + timeout
        while not path.exists():
            assert time.monotonic() < until, f"no state within {timeout} s"
            time.sleep(0.002)
        with path.open("rb") as file:
            return state_head(file.readline(STATE_HEAD))

    def restore(self, *, timeout=60.0):
        """Have the saved state taken over; returns the event."""
        self.control.sendall(self.speaker.restore("r", ".state/python"))
        self.control.settimeout(timeout)
        while not self.events:
            data = self.control.recv(1 << 20)
            assert data, "the worker ended while it restored"
            self.events += self.speaker.feed(data)
        self.control.settimeout(None)
        event = self.events.pop(0)
        assert (event["event"], event["id"]) == ("restored", "r")
        return event

    def interrupt(self):
        os.kill(self.pid, signal.SIGINT)

    def collect(self, execution_id, *, timeout=60.0):
        """Read until the cell is done or the worker is gone."""
        cell = Cell()
        until = time.monotonic() + timeout
        while self.alive and cell.done is None:
            ready, _, _ = select.select([self.control, *self.pipes], [], [], max(0, until - time.monotonic()))
            assert ready, f"no answer within {timeout} s: {cell}"
            self._read(ready, cell)
            self._sort(execution_id, cell)
        time.sleep(0.0 if cell.done else 0.05)
        while ready := [fd for fd in select.select([*self.pipes], [], [], 0)[0] if self.pipes]:
            self._read(ready, cell)
        return cell

    def _read(self, ready, cell):
        for fd in ready:
            if fd is self.control:
                data = self.control.recv(1 << 20)
                self.alive = bool(data)
                self.events += self.speaker.feed(data)
            else:
                data = os.read(fd, 1 << 16)
                name = self.pipes[fd]
                setattr(cell, name, getattr(cell, name) + data.decode(errors="replace"))
                if not data:
                    os.close(fd)
                    del self.pipes[fd]

    def _sort(self, execution_id, cell):
        for event in self.events:
            assert event["event"] == "ready" or event["id"] == execution_id, event
            if event["event"] == "display":
                cell.displays.append(event)
            elif event["event"] == "done":
                assert cell.done is None
                cell.done = event
        self.events = []

    def wait_ready(self, timeout=30.0):
        """Take the first event; returns it."""
        self.control.settimeout(timeout)
        while not self.events:
            data = self.control.recv(1 << 20)
            assert data, "the worker ended before it was ready: " + os.read(max(self.pipes), 1 << 16).decode()
            self.events += self.speaker.feed(data)
        self.control.settimeout(None)
        return self.events.pop(0)

    def close(self):
        self.control.close()
        for fd in self.pipes:
            os.close(fd)
        self.pipes = {}
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


class Zygote:
    """A process that has Python loaded and forks workers."""

    def __init__(self, home):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.home = home
        self.requests = ours
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("python_zygote.py")), str(ROOT), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=home,
            env={
                "HOME": str(home),
                "OPENBLAS_NUM_THREADS": "1",
                "OMP_NUM_THREADS": "1",
                "JE_ARROW_MALLOC_CONF": "background_thread:false",
            },
        )
        theirs.close()
        ours.settimeout(60)
        data = ours.recv(1 << 20)
        assert data, f"the zygote did not start: {self.process.wait(10)}"
        self.report = json.loads(data)

    def fork(self, folder):
        """A worker at work in `folder`."""
        ours, theirs = socket.socketpair()
        out, out_write = os.pipe()
        err, err_write = os.pipe()
        request = json.dumps({"folder": str(folder)}).encode()
        socket.send_fds(self.requests, [request], [theirs.fileno(), out_write, err_write])
        pid = json.loads(self.requests.recv(1 << 16))["pid"]
        theirs.close()
        os.close(out_write)
        os.close(err_write)
        worker = Worker(pid, ours, out, err, folder)
        assert worker.wait_ready() == {"event": "ready"}
        return worker

    def close(self):
        self.requests.close()
        self.process.wait(10)
