"""Trial: a confined worker, under a leader of its own, attempts what each layer is there to refuse."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from executor.sandbox import identity
from executor.sandbox.confinement import Confinement, Sandbox
from executor.sandbox.kernel import X86_64, syscall

PROCESSES = 4
THREADS = 12
"""How many processes and threads the worker may have: few, as it tries them out."""

_DEADLINE = 20.0
"""Seconds that a trial may take; it needs about 0.05."""

_PTRACE, _KEYCTL, _BPF, _PERF, _UNSHARE, _CLONE3 = 101, 250, 321, 298, 272, 435
_NEWUSER = 0x10000000


def run(sandbox: Sandbox, folder: str) -> dict[str, Any]:
    """What a confined worker could do, and its leader with it; `failed` when it could not even start."""
    uid = identity.session_user(0) if sandbox.own_user else None
    home = tempfile.mkdtemp(dir=folder)
    canary = Path(folder, "canary")
    canary.write_text("a secret of another session")
    canary.chmod(0o644)
    if uid is not None:
        os.chown(home, uid, uid)
        os.chown(canary, uid, uid)  # its own user's: only the layers stand in front of it
    reader, writer = os.pipe2(os.O_CLOEXEC)
    leader = os.fork()
    if leader == 0:
        os.close(reader)
        _lead(sandbox, home, uid, str(canary), writer)
    os.close(writer)
    text = _read_all(reader, _DEADLINE)
    os.close(reader)
    with contextlib.suppress(ProcessLookupError):
        if not text:
            os.kill(leader, signal.SIGKILL)
    os.waitpid(leader, 0)
    found: dict[str, Any] = json.loads(text) if text else {"failed": "the trial's leader died or did not answer"}
    found["canary"] = canary.exists() and canary.stat().st_mode & 0o777 == 0o644 and canary.stat().st_mtime > 1
    return found


def _lead(sandbox: Sandbox, home: str, uid: int | None, canary: str, writer: int) -> None:
    """The trial's leader: confine, start one worker, answer for it, end it; the outcome goes to `writer`."""
    try:
        identity.hide()
        sandbox.limits = replace(sandbox.limits, processes=PROCESSES, threads=THREADS)
        confinement = sandbox.confine(home, uid=uid)
        found = _work(confinement, canary)
    except BaseException as error:
        found = {"failed": f"{type(error).__name__}: {error}"}
    with contextlib.suppress(BaseException):
        os.write(writer, json.dumps(found).encode())
    os._exit(0)


def _work(confinement: Confinement, canary: str) -> dict[str, Any]:
    entrance = confinement.entrance()
    leader = os.getpid()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    worker = os.fork()
    if worker == 0:
        found: dict[str, Any]
        try:
            os.setsid()
            os.chdir(confinement.folder)
            entrance.enter()
            found = _attempt_all(leader, canary)
        except BaseException as error:
            found = {"failed": f"{type(error).__name__}: {error}"}
        with contextlib.suppress(BaseException):
            os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    listener = entrance.admit()
    text = b""
    until = time.monotonic() + _DEADLINE / 2
    watched = [reader, *([listener] if listener is not None else [])]
    while time.monotonic() < until:
        ready = select.select(watched, [], [], 1)[0]
        if listener in ready and listener is not None and not confinement.notifier.handle(listener):
            watched.remove(listener)
        if reader in ready:
            part = os.read(reader, 1 << 16)
            text += part
            if not part or text.endswith(b"}"):
                break
    found = json.loads(text) if text else {"failed": "the trial's worker died or did not answer"}
    found["walkable"] = confinement.tree.walkable
    found["left"] = confinement.end().left
    return found


def _attempt_all(leader: int, canary: str) -> dict[str, Any]:
    """In the worker: what each layer is for. A value is the error, or None where the attempt worked."""
    found: dict[str, Any] = {
        "uid": os.getuid(),
        "interpreter": _attempt(lambda: open(os.__file__).close()),
        "run": None if os.access(sys.executable, os.X_OK) else "the interpreter may not be run",
        "own_file": _attempt(lambda: Path("probe.txt").write_text("x")),
        "read": _attempt(lambda: Path(canary).read_text()),
        "write": _attempt(lambda: Path(canary).write_text("")),
        "list": _attempt(lambda: os.listdir(Path(canary).parent)),
        "other_mode": _attempt(lambda: os.chmod(canary, 0o600)),
        "other_time": _attempt(lambda: os.utime(canary, (1, 1))),
        "own_mode": _attempt(_change_own_mode),
        "look": _attempt(lambda: os.listdir(f"/proc/{leader}/fd")),
        "signal": _attempt(lambda: os.kill(leader, 0)),
        "socket": _attempt(lambda: socket.socket(socket.AF_INET).close()),
        "forks": _count_forks(),
        "threads": _count_threads(),
    }
    if X86_64:
        found["kernel"] = {
            "ptrace": _attempt(lambda: syscall(_PTRACE, 0)),
            "keyctl": _attempt(lambda: syscall(_KEYCTL, 0, -3, 0)),
            "bpf": _attempt(lambda: syscall(_BPF, 0, 0, 0)),
            "perf": _attempt(lambda: syscall(_PERF, 0, 0, -1, -1, 0)),
            "unshare": _attempt(lambda: syscall(_UNSHARE, _NEWUSER)),
            "clone3": _attempt(lambda: syscall(_CLONE3, 0, 0)),
        }
    # forks away from everyone; the leader must find it all the same
    if _fork_patiently() == 0:
        if _fork_patiently() == 0:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            time.sleep(60)
        os._exit(0)
    os.wait()
    return found


def _attempt(act: Callable[[], object]) -> str | None:
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    return None


def _change_own_mode() -> None:
    os.chmod("probe.txt", 0o700)
    if Path("probe.txt").stat().st_mode & 0o7777 != 0o700:
        raise OSError(errno.EPERM, "the mode is another one")


def _count_forks() -> int:
    """How many processes can be alive at once, up to three more than allowed."""
    children = []
    for _ in range(PROCESSES + 3):
        try:
            pid = os.fork()
        except OSError:
            break
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return len(children) + 1


def _fork_patiently() -> int:
    """A fork after many threads: they are joined a moment before they are gone."""
    until = time.monotonic() + 5
    while True:
        try:
            return os.fork()
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def _count_threads() -> int:
    stop = threading.Event()
    threads = []
    for _ in range(THREADS + 3):
        thread = threading.Thread(target=stop.wait, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            break
        threads.append(thread)
    stop.set()
    for thread in threads:
        thread.join(5)
    return len(threads) + 1


def _read_all(fd: int, seconds: float) -> bytes:
    text, until = b"", time.monotonic() + seconds
    while select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(fd, 1 << 16)
        if not part:
            break
        text += part
    return text
