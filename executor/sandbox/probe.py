"""Finds out how well this host holds hostile code, by letting a confined child try what must not work.

Never by version: kernels are patched, and containers take away what kernels have. `python -m executor.sandbox.probe`
prints the table.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import select
import shutil
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

from executor.sandbox import identity, landlock
from executor.sandbox.confinement import Confinement, Sandbox
from executor.sandbox.kernel import LINUX, X86_64, syscall
from executor.sandbox.limits import Limits
from executor.sandbox.report import Layer, Level, SandboxReport
from executor.settings import Settings

_DEADLINE = 20.0
_PASSABLE = 0o711
"""A folder that other users get through, without seeing what is in it."""
_PROCESSES = 4
_THREADS = 12

_PTRACE, _KEYCTL, _BPF, _PERF, _UNSHARE, _CLONE3 = 101, 250, 321, 298, 272, 435
_NEWUSER = 0x10000000


def probe(sandbox: Sandbox, *, state: str) -> SandboxReport:
    """Try every layer in `state`, turn off in `sandbox` what does not hold, and say what is left.

    Needs a process with one thread: it forks. Takes about 0.1 s. Never raises for what the host lacks.
    """
    if not LINUX:
        return SandboxReport(
            "weak", {"kernel": Layer(False, f"{platform.system()} has none of the layers: use Linux.")}
        )
    folder = tempfile.mkdtemp(prefix=".probe-", dir=state)
    os.chmod(folder, _PASSABLE)
    try:
        found = _settle(sandbox, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return _report(sandbox, found)


def _settle(sandbox: Sandbox, folder: str) -> dict[str, Any]:
    """Run the trial, with fewer and fewer layers until a worker gets in and works."""
    while True:
        found = _trial(sandbox, folder)
        if _problem(found):
            found = _trial(sandbox, folder)  # a layer is not given up for a hiccup of a busy machine
        problem = _problem(found)
        if problem is None:
            return found
        if sandbox.own_user:
            sandbox.why["user"] = str(problem)
            sandbox.without(own_user=False)
        elif sandbox.view is not None:
            sandbox.why["namespaces"] = str(problem)
            sandbox.without(namespaces=False)
        elif sandbox.notifier:
            sandbox.why["notifier"] = str(problem)
            sandbox.without(notifier=False)
        elif sandbox.handled is not None:
            sandbox.why["landlock"] = str(problem)
            sandbox.without(landlock=False)
        else:
            return found


def _problem(found: dict[str, Any]) -> str | None:
    """What kept a worker from working at all."""
    if "failed" in found:
        return str(found["failed"])
    if found.get("interpreter") or found.get("run"):
        return f"it cannot read the interpreter in {sys.base_prefix}, which is in a folder of another user"
    return f"it cannot write into its folder ({found['own_file']})" if found.get("own_file") else None


def _trial(sandbox: Sandbox, folder: str) -> dict[str, Any]:
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
        sandbox.limits = replace(sandbox.limits, processes=_PROCESSES, threads=_THREADS)
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
    found["denials"] = dict(confinement.notifier.denials)
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
        "shared_memory": _attempt(_share_memory),
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


def _share_memory() -> None:
    fd = os.open("/dev/shm/probe", os.O_RDWR | os.O_CREAT, 0o600)  # noqa: S108
    os.close(fd)


def _count_forks() -> int:
    """How many processes can be alive at once, up to three more than allowed."""
    children = []
    for _ in range(_PROCESSES + 3):
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
    for _ in range(_THREADS + 3):
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


def _report(sandbox: Sandbox, found: dict[str, Any]) -> SandboxReport:
    layers = {
        "files": _files(sandbox, found),
        "system_calls": _system_calls(sandbox, found),
        "network": _network(sandbox, found),
        "signals": _signals(found),
        "forks": _forks(sandbox, found),
        "modes": _modes(found),
        "kill": _kill(found),
        "user": _user(sandbox, found),
        "namespaces": _namespaces(sandbox),
    }
    needed = ("files", "system_calls", "network", "signals", "forks", "kill")
    level: Level = "weak"
    if sandbox.handled is not None and all(layers[name].on for name in needed):
        level = "full" if layers["namespaces"].on else "strong"
    return SandboxReport(level, layers)


def _files(sandbox: Sandbox, found: dict[str, Any]) -> Layer:
    if sandbox.handled is None:
        why = sandbox.why.get("landlock", "the kernel does not offer it (Linux 5.13, lsm=landlock)")
        return Layer(False, f"No Landlock: {why}. Code could read and change every file of the server's user.")
    opened = [name for name in ("read", "write", "list", "look") if found.get(name) is None]
    if opened or not found.get("canary"):
        return Layer(False, f"Landlock does not hold: a worker could {', '.join(opened) or 'change'} what it must not.")
    version = sandbox.layers.landlock_abi or landlock.abi()
    return Layer(True, f"Landlock ABI {version}: only the session's folder, interpreters and libraries are in reach.")


def _system_calls(sandbox: Sandbox, found: dict[str, Any]) -> Layer:
    if not X86_64:
        return Layer(False, f"The filter knows x86_64 only, this is {platform.machine()}.")
    if sandbox.filter is None:
        return Layer(False, "The filter of system calls is turned off.")
    passed = [name for name, error in found.get("kernel", {"all": None}).items() if error is None]
    if passed:
        return Layer(False, f"The filter of system calls does not hold: {', '.join(passed)} got through.")
    return Layer(True, "Seccomp: dangerous system calls and unknown ones are refused, foreign architectures killed.")


def _network(sandbox: Sandbox, found: dict[str, Any]) -> Layer:
    if found.get("socket") is None:
        return Layer(False, "A worker could open a network socket.")
    tcp = sandbox.handled is not None and sandbox.handled.tcp
    private = sandbox.view is not None
    more = ", ".join(
        [*(["Landlock refuses TCP"] if tcp else []), *(["the network is an empty one"] if private else [])]
    )
    return Layer(True, f"No sockets but local pairs{'; also ' + more if more else ''}.")


def _signals(found: dict[str, Any]) -> Layer:
    if found.get("signal") is None:
        return Layer(False, "A worker could signal a process outside of its session.")
    return Layer(True, "Signals reach the session's own processes only.")


def _forks(sandbox: Sandbox, found: dict[str, Any]) -> Layer:
    if not sandbox.notifier:
        why = sandbox.why.get("notifier", "the kernel has no seccomp user notification (Linux 5.0)")
        return Layer(False, f"Processes and threads are not counted: {why}.")
    processes, threads = found.get("forks", 0), found.get("threads", 0)
    if processes != _PROCESSES or threads != _THREADS:
        return Layer(False, f"{processes} processes of {_PROCESSES} and {threads} threads of {_THREADS} could start.")
    return Layer(True, "Seccomp user notification: processes and threads are counted exactly.")


def _modes(found: dict[str, Any]) -> Layer:
    if found.get("other_mode") is None or found.get("other_time") is None:
        return Layer(False, "A worker could change modes or times of files outside of its folder.")
    if found.get("own_mode") is not None:
        return Layer(False, f"chmod is refused everywhere ({found['own_mode']}): the leader cannot look into workers.")
    return Layer(True, "chmod and utime are carried out by the leader, in the session's folder only.")


def _kill(found: dict[str, Any]) -> Layer:
    if found.get("failed"):
        return Layer(False, f"No worker could start: {found['failed']}")
    if found.get("left"):
        return Layer(False, "A process that hid survived the end of its session.")
    return Layer(True, "Nothing of a session survives its end.")


def _user(sandbox: Sandbox, found: dict[str, Any]) -> Layer:
    if sandbox.own_user and found.get("uid") == identity.session_user(0):
        return Layer(True, "Every session has a user of its own, without privileges.")
    why = sandbox.why.get("user", "the server may not change users; start it as root to have this")
    return Layer(False, f"All sessions share the server's user: {why}.")


def _namespaces(sandbox: Sandbox) -> Layer:
    if sandbox.view is not None:
        return Layer(True, "Processes, network, IPC and mounts of its own, a small /dev/shm, a private /tmp.")
    if not sandbox.layers.namespaces and "namespaces" not in sandbox.why:
        return Layer(False, "Turned off.")
    return Layer(False, f"The host does not grant them: {sandbox.why.get('namespaces', 'unknown reason')}.")


def main() -> None:
    """Print the table, for a look at a new host."""
    state = tempfile.mkdtemp()
    os.chmod(state, _PASSABLE)
    # in a child, whose mounts end with it: nothing may be deleted through them
    child = os.fork()
    if child == 0:
        sandbox = Sandbox.prepare(Limits.of(Settings()), state=state)
        report = probe(sandbox, state=state)
        sys.stdout.write(f"level: {report.level}\n")
        for name, layer in report.layers.items():
            sys.stdout.write(f"{'on ' if layer.on else 'OFF'} {name:13} {layer.why}\n")
        sys.stdout.flush()
        os._exit(0)
    os.waitpid(child, 0)
    shutil.rmtree(state, ignore_errors=True)


if __name__ == "__main__":
    main()
