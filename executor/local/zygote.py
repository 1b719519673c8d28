"""Zygote: the process that has everything loaded and of which every session is a fork.

It is exec'd by the server with an empty environment, so no secret is in its memory, its environment or its stack. It
has one thread, asserted before every fork. It also is the parent that cleans up behind a leader that died badly.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import signal
import socket
import time
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from executor.languages import python as python_language
from executor.languages.bash import Bash
from executor.languages.javascript import JavaScript
from executor.local.guard import kill_orphans
from executor.local.leader import lead
from executor.local.removal import remove_tree
from executor.local.worker import Program, base_environment
from executor.results import Language
from executor.sandbox import identity, kernel
from executor.sandbox.confinement import Sandbox
from executor.sandbox.limits import Limits
from executor.sandbox.probe import probe
from executor.settings import Settings

MAX_REQUEST = 1 << 16

LANGUAGES = Path(python_language.__file__).parent
"""The programs that node and bash start with must be readable inside."""

FIRST_UID = 200_000
"""Uids from here on are given to sessions, one each, where the zygote may change its user."""


def main(control_fd: int) -> NoReturn:
    """Load everything, then fork a leader for every request until the server is gone."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    control = socket.socket(fileno=control_fd)
    order = json.loads(control.recv(MAX_REQUEST))
    settings = _settings(order["settings"])
    began = time.monotonic()
    python_language.preload()
    sandbox = Sandbox.prepare(Limits.of(settings), state=settings.state_dir, extra=[str(LANGUAGES)])
    identity.hide()
    report = probe(sandbox, state=settings.state_dir)
    _tell(control, {"event": "ready", "seconds": time.monotonic() - began, "sandbox": report.to_json()})
    _Zygote(control, settings, sandbox, temporary=order["temporary"]).run()


def _settings(values: dict[str, Any]) -> Settings:
    known: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Settings(**known)


def _tell(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        control.send(json.dumps(message).encode())


class _Zygote:
    def __init__(self, control: socket.socket, settings: Settings, sandbox: Sandbox, *, temporary: bool) -> None:
        self._control = control
        self._settings = settings
        self._sandbox = sandbox
        self._uids = count(FIRST_UID)
        self._temporary = temporary
        self._leaders: dict[int, tuple[str, str]] = {}  # pid to (token, folder)
        self._pids: dict[str, int] = {}

    def run(self) -> NoReturn:
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(reader, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == reader:
                    with contextlib.suppress(BlockingIOError):
                        os.read(reader, 4096)
                    self._reap()
                elif not self._serve():
                    # the server is gone: leaders notice by themselves, each on its own socket
                    self._wait_for_leaders()
                    if self._sandbox.view is not None:
                        self._sandbox.view.close()
                    if self._temporary:
                        remove_tree(self._settings.state_dir)
                    os._exit(0)

    def _serve(self) -> bool:
        # room for exactly one descriptor: the leader's end of its connection to the server
        data, ancillary, _, _ = self._control.recvmsg(MAX_REQUEST, socket.CMSG_SPACE(4))
        if not data:
            return False
        fds = array.array("i")
        for _, _, payload in ancillary:
            fds.frombytes(payload)
        message = json.loads(data)
        if message["op"] == "create":
            self._create(message["token"], message["folder"], socket.socket(fileno=fds[0]))
        elif message["op"] == "kill" and (pid := self._pids.get(message["token"])):
            os.kill(pid, signal.SIGKILL)
        return True

    def _create(self, token: str, folder: str, server: socket.socket) -> None:
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            server.close()
            _tell(self._control, {"event": "fault", "detail": f"the zygote has {threads} threads and cannot fork"})
            os._exit(72)
        os.mkdir(folder, 0o700)
        uid = None
        if self._sandbox.own_user:
            # never one that was in use before: nothing that an earlier session left can be its
            uid = next(self._uids)
            os.chown(folder, uid, uid)
        pid = os.fork()
        if pid == 0:
            self._control.close()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.setsid()
            lead(
                server,
                folder=folder,
                uid=uid,
                settings=self._settings,
                programs=lambda path: _programs(path, self._settings),
                sandbox=self._sandbox,
            )
        server.close()
        self._leaders[pid] = token, folder
        self._pids[token] = pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if known := self._leaders.pop(pid, None):
                token, folder = known
                self._pids.pop(token, None)
                if status:
                    # its workers die with it; what they had started has become ours
                    kill_orphans(set(self._leaders))
                self._remove(folder)

    def _remove(self, folder: str) -> None:
        """A leader empties its folder, but where it has a view of its own it cannot remove it."""
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            return
        except OSError:
            # aside, as it may take long
            if os.fork() == 0:
                with contextlib.suppress(BaseException):
                    self._control.close()
                    remove_tree(folder)
                os._exit(0)

    def _wait_for_leaders(self) -> None:
        until = time.monotonic() + 10
        while self._leaders and time.monotonic() < until:
            self._reap()
            time.sleep(0.01)
        for pid in self._leaders:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        kill_orphans(set())


def _programs(folder: Path, settings: Settings) -> dict[Language, Program]:
    environment = base_environment(folder)
    memory = settings.session_memory_mb
    return {
        "python": Program(
            python_language.Python,
            environment,
            run=lambda control, path: python_language.main(control, folder=path),
        ),
        "javascript": Program(lambda: JavaScript(folder=folder, memory_mb=memory), environment),
        "bash": Program(lambda: Bash(folder=folder, memory_mb=memory), environment),
    }
