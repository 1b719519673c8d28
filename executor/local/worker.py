"""Worker: the process that runs one language of one session, as its leader sees it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from executor.languages.channel import Interpreter
from executor.sandbox import kernel
from executor.sandbox.confinement import Entrance


@dataclass(frozen=True, slots=True)
class Program:
    """How a language's worker runs: `run` in the forked process itself (never returns), or its `command` is exec'd."""

    interpreter: Callable[[], Interpreter]
    environment: Mapping[str, str]
    run: Callable[[socket.socket, Path], NoReturn] | None = None


class Worker:
    """A started worker. Its descriptors are non-blocking; `pid` is a child of ours until `reaped` is called."""

    def __init__(self, program: Program, folder: Path, *, entrance: Entrance, parent: int) -> None:
        """Fork, and wait until the child is shut in, before anything of the guest's runs.

        `parent` is our process id as the child sees it. Raises OSError, or BackendFailed where the child died on its
        way in.
        """
        self.speaker = program.interpreter()
        self.language = self.speaker.language
        self.ready = False
        pairs = {number: socket.socketpair() for number in self.speaker.CONTROL}
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        # a fork copies what is buffered: nothing may be; we have one thread, and the interpreter seeds itself
        pid = kernel.plain_fork()
        if pid == 0:
            ends = {1: out_write, 2: err_write} | {number: pair[1].detach() for number, pair in pairs.items()}
            _become(program, self.speaker, folder, ends, entrance, parent)
        os.close(out_write)
        os.close(err_write)
        self.pid = pid
        for _, theirs in pairs.values():
            theirs.close()
        self.control, *self._further = (ours for ours, _ in pairs.values())
        self.control.setblocking(False)
        self.pipes: dict[int, str] = {out_read: "stdout", err_read: "stderr"}
        for fd in self.pipes:
            os.set_blocking(fd, False)
        self._unsent = bytearray()
        self.listener = entrance.admit()

    def send(self, data: bytes) -> bool:
        """Write to the control socket as far as it takes it; False while something waits."""
        self._unsent += data
        return self.flush()

    def flush(self) -> bool:
        """Write what waits; False while something still does."""
        while self._unsent:
            try:
                sent = self.control.send(self._unsent)
            except BlockingIOError:
                return False
            except OSError:
                self._unsent.clear()  # it is dead or has hung up: its exit tells
                return True
            del self._unsent[:sent]
        return True

    def receive(self) -> bytes | None:
        """What the worker sent; empty when it has hung up, None when there is nothing now."""
        try:
            return self.control.recv(1 << 20)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def signal_stop(self) -> None:
        """The soft stop by signal, as Ctrl+C gives it: to the worker, or to all that run in its foreground."""
        with contextlib.suppress(OSError):
            if self.speaker.interrupt_target == "foreground":
                os.killpg(self.pid, signal.SIGINT)
            else:
                os.kill(self.pid, signal.SIGINT)

    def descriptors(self) -> list[int]:
        """What its leader polls."""
        listener = [] if self.listener is None else [self.listener]
        return [self.control.fileno(), *self.pipes, *listener]

    def close(self) -> None:
        """Give up our ends."""
        for end in (self.control, *self._further):
            end.close()
        for fd in self.pipes:
            os.close(fd)
        self.pipes.clear()
        if self.listener is not None:
            os.close(self.listener)
            self.listener = None


def die_with_parent(parent: int) -> None:
    """Be killed when `parent`, the process that forked us, ends; now, if it already has."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(71)


def _become(
    program: Program,
    interpreter: Interpreter,
    folder: Path,
    ends: dict[int, int],
    entrance: Entrance,
    parent: int,
) -> NoReturn:
    """Turn the forked child into a worker. Whatever fails, it ends here and never runs on as a second leader."""
    try:
        signal.set_wakeup_fd(-1)
        for which in (signal.SIGCHLD, signal.SIGTERM, signal.SIGPIPE, signal.SIGINT):
            signal.signal(which, signal.SIG_DFL)
        die_with_parent(parent)
        os.setsid()
        ends[0] = os.open(os.devnull, os.O_RDWR)
        # out of the way first: any of them may sit on a number that another one must take
        high = max(*ends, *ends.values()) + 1
        moved = {number: fcntl.fcntl(fd, fcntl.F_DUPFD, high) for number, fd in ends.items()}
        for number, fd in moved.items():
            os.dup2(fd, number, inheritable=True)
        for start, end in pairwise(sorted([*ends, *entrance.fds, 1 << 20])):
            os.closerange(start + 1, end)
        os.chdir(folder)
        os.umask(0o077)
        os.environ.clear()
        os.environ.update(program.environment)
        os.environ.update(interpreter.environment())
        entrance.enter()
        if program.run is None:
            command = interpreter.command()
            os.execve(command[0], command, dict(os.environ))  # noqa: S606  no shell is wanted
        else:
            threading.main_thread()._set_native_id()  # type: ignore[attr-defined]  # else it is our parent's
            program.run(socket.socket(fileno=interpreter.CONTROL[0]), folder)
    except BaseException as error:
        with contextlib.suppress(BaseException):
            os.write(2, f"the {interpreter.language} worker did not start: {error!r}\n".encode())
    finally:
        os._exit(70)


def base_environment(folder: Path) -> dict[str, str]:
    """The whole environment of a worker: nothing of the server's is in it."""
    bin_folder = Path(sys.executable).parent
    return {
        "HOME": str(folder),
        "PWD": str(folder),
        "TMPDIR": f"{folder}/.tmp",
        "PATH": f"{folder}/.packages/python/bin:{bin_folder}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "USER": "guest",
        "LOGNAME": "guest",
        "PYTHONPATH": f"{folder}/.packages/python",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "MPLBACKEND": "agg",
        "MPLCONFIGDIR": f"{folder}/.tmp/matplotlib",
        "NODE_PATH": f"{folder}/.packages/node/node_modules",
        "GIT_CONFIG_NOSYSTEM": "1",
        "OPENBLAS_NUM_THREADS": "2",
        "OMP_NUM_THREADS": "2",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "NO_COLOR": "1",
    }
