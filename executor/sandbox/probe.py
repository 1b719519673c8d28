"""Finds out how well this host holds hostile code, by letting a confined child try what must not work.

Never by version: kernels are patched, and containers take away what kernels have. `python -m executor.sandbox.probe`
prints the table.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from typing import Any

from executor.sandbox import identity, landlock, trial
from executor.sandbox.confinement import Sandbox
from executor.sandbox.kernel import LINUX, X86_64
from executor.sandbox.limits import Limits
from executor.sandbox.report import Layer, Level, SandboxReport
from executor.settings import Settings

_PASSABLE = 0o711
"""A folder that other users get through, without seeing what is in it."""


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
        found = trial.run(sandbox, folder)
        if _problem(found):
            found = trial.run(sandbox, folder)  # a layer is not given up for a hiccup of a busy machine
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
    if processes != trial.PROCESSES or threads != trial.THREADS:
        allowed = f"{trial.PROCESSES} processes and {trial.THREADS} threads"
        return Layer(False, f"Processes and threads are not held: {processes} and {threads} of {allowed} could start.")
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
    if not found.get("walkable"):
        return Layer(False, "The kernel does not list children (CONFIG_PROC_CHILDREN): nothing of a session is found.")
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
