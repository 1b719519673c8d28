"""Zygote: the process that has everything loaded and of which every session is a fork.

It is exec'd by the server with an empty environment, so no secret is in its memory, its environment or its stack. It
has one thread, asserted before every fork. It also is the parent that cleans up behind a leader that died badly.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
from itertools import count
from pathlib import Path
from typing import Any, NoReturn

from executor.languages import python as python_language
from executor.languages.bash import Bash
from executor.languages.javascript import JavaScript
from executor.local.guard import kill_orphans
from executor.local.journal import Journal
from executor.local.leader import lead
from executor.local.paths import SESSIONS
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

WARMED = ("matplotlib", ".config", ".cache", "store")
"""Folders that libraries make in the work folder while they load, and the server for snapshots that need not last."""

LEADERS_END = 10.0
"""Seconds in which leaders must have ended once the server is gone."""


def main(control_fd: int) -> NoReturn:
    """Load everything, then fork a leader for every request until the server is gone."""
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)
    control = socket.socket(fileno=control_fd)
    order = json.loads(control.recv(MAX_REQUEST))
    settings = _settings(order["settings"])
    began = time.monotonic()
    python_language.preload()
    _share_more()
    sandbox = Sandbox.prepare(Limits.of(settings), state=settings.work_dir, extra=[str(LANGUAGES)])
    identity.hide()
    report = probe(sandbox, state=settings.work_dir)
    _tell(control, {"event": "ready", "seconds": time.monotonic() - began, "sandbox": report.to_json()})
    _Zygote(control, settings, sandbox, temporary=order["temporary"]).run()


def _share_more() -> None:
    """Make forks write to fewer of the pages that they share with us: a session is, above all, what it has copied."""
    from matplotlib import font_manager  # noqa: PLC0415  loaded by `preload` already

    with contextlib.suppress(AttributeError):  # not its public face: where it is gone, forks only cost more
        # it has every fork forget its open fonts, a megabyte of writes each time; there is less to do if we do
        font_manager._get_font.cache_clear()  # type: ignore[attr-defined]
    if sys.version_info < (3, 12):
        # its entries count references to names of attributes all over the memory, until a fork looks up others; from
        # 3.12 on such names are immortal and not counted
        sys._clear_type_cache()
    gc.collect()
    gc.freeze()


def _settings(values: dict[str, Any]) -> Settings:
    known: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    return Settings(**known)


def _tell(control: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        control.send(json.dumps(message).encode())


class _Zygote:
    """Knows its leaders by number alone: every worker inherits this memory, and a session's folder is a secret.

    So a folder comes as a handle, and its name is never in here.
    """

    def __init__(self, control: socket.socket, settings: Settings, sandbox: Sandbox, *, temporary: bool) -> None:
        self._control = control
        self._settings = settings
        self._sandbox = sandbox
        self._journal = Journal.open(settings.cell_journal)
        # held, so that its number cannot become another's
        self._sessions = os.open(f"{settings.work_dir}/{SESSIONS}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._places = count()
        self._temporary = temporary
        self._numbers: dict[int, int] = {}  # pid of a leader to its number
        self._pids: dict[int, int] = {}

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
                    self._end()

    def _serve(self) -> bool:
        # room for exactly two descriptors: the leader's end of its line to the server, and the session's folder
        try:
            data, ancillary, _, _ = self._control.recvmsg(MAX_REQUEST, socket.CMSG_SPACE(8))
        except OSError:
            return False  # the server was killed with something of ours unread
        if not data:
            return False
        fds = array.array("i")
        for _, _, payload in ancillary:
            fds.frombytes(payload)
        message = json.loads(data)
        if message["op"] == "create":
            self._create(message["number"], socket.socket(fileno=fds[0]), fds[1])
        elif message["op"] == "kill" and (pid := self._pids.get(message["number"])):
            os.kill(pid, signal.SIGKILL)
        return True

    def _create(self, number: int, server: socket.socket, folder: int) -> None:
        threads = len(os.listdir("/proc/self/task"))
        if threads != 1:
            _tell(self._control, {"event": "fault", "detail": f"the zygote has {threads} threads and cannot fork"})
            os._exit(72)
        uid = None
        if self._sandbox.own_user:
            # never one that was in use before: nothing that an earlier session left can be its
            uid = identity.session_user(next(self._places))
            os.fchown(folder, uid, uid)
        pid = kernel.plain_fork()
        if pid == 0:
            self._control.close()
            os.close(self._sessions)
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
                journal=self._journal,
            )
        server.close()
        os.close(folder)
        self._numbers[pid] = number
        self._pids[number] = pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if (number := self._numbers.pop(pid, None)) is not None:
                self._pids.pop(number, None)
                if status:
                    # its workers die with it; what they had started has become ours
                    kill_orphans(set(self._numbers))

    def _end(self) -> NoReturn:
        """The server is gone. Leaders notice by themselves, each on its own line; then nothing may be left."""
        until = time.monotonic() + LEADERS_END
        while self._numbers and time.monotonic() < until:
            self._reap()
            time.sleep(0.01)
        kill_orphans(set())
        state = self._settings.work_dir
        # never the whole state folder at once: what is mounted in it, in our namespace, is the host's own
        if self._has_folder():
            remove_tree(f"{state}/{SESSIONS}")
        for name in WARMED if self._temporary else ():
            remove_tree(f"{state}/{name}")
        if self._sandbox.view is not None:
            self._sandbox.view.close()
        if self._temporary:
            with contextlib.suppress(OSError):
                os.rmdir(state)
        os._exit(0)

    def _has_folder(self) -> bool:
        """Whether the folder of sessions is still ours: the next server may have begun in the same place by now."""
        with contextlib.suppress(OSError):
            return os.path.samestat(
                os.stat(f"{self._settings.work_dir}/{SESSIONS}", follow_symlinks=False), os.fstat(self._sessions)
            )
        return False


def _programs(folder: Path, settings: Settings) -> dict[Language, Program]:
    environment = base_environment(folder)
    memory = settings.session_memory_mb
    return {
        "python": Program(
            lambda: python_language.Python(variables=settings.show_variables),
            environment,
            run=lambda control, path: python_language.main(control, folder=path),
        ),
        "javascript": Program(lambda: JavaScript(folder=folder, memory_mb=memory), environment),
        "bash": Program(lambda: Bash(folder=folder, memory_mb=memory), environment),
    }
