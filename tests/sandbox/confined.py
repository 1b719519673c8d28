"""Runs a function in a confined worker of a sandbox made for it, without any of the rooms above the sandbox."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from executor.sandbox import identity
from executor.sandbox.confinement import Confinement, Layers, Sandbox
from executor.sandbox.limits import MIB, Limits

LIMITS = Limits(
    memory=256 * MIB,
    folder_bytes=16 * MIB,
    folder_files=500,
    cpu_seconds=30,
    processes=8,
    threads=24,
    open_files=256,
)


@dataclass
class Outcome:
    """What the function returned, what was refused, the worker's wait status, and what its leader saw."""

    value: Any = None
    error: str = ""
    denials: dict[str, int] = field(default_factory=dict)
    status: int = 0
    left: list[int] = field(default_factory=list)
    killed: int = 0
    leader: Any = None
    peak: dict[str, int] = field(default_factory=dict)


def confined(
    act: Callable[[], Any],
    *,
    layers: Layers | None = None,
    limits: Limits = LIMITS,
    uid: int | None = None,
    watch: Callable[[Confinement], Any] | None = None,
    seconds: float = 15.0,
    copies: bool = False,
) -> Outcome:
    """Run `act` in a worker; `watch` in its leader when it has ended but what it started has not.

    `copies`: the worker may make one copy of itself.
    """
    state = tempfile.mkdtemp(prefix="sandbox-", dir="/var/tmp")
    os.chmod(state, 0o711)
    reader, writer = os.pipe()
    zygote = os.fork()
    if zygote == 0:
        # as the real one, which is exec'd: nothing that the tests hold open counts against the worker's own limit
        os.closerange(3, writer)
        os.closerange(writer + 1, 1 << 16)
        _zygote(act, layers or Layers(), limits, uid, watch, seconds, copies, state, writer)
    os.close(writer)
    text = b""
    while part := os.read(reader, 1 << 16):
        text += part
    os.close(reader)
    os.waitpid(zygote, 0)
    shutil.rmtree(state, ignore_errors=True)
    return Outcome(**json.loads(text))


def _zygote(act, layers, limits, uid, watch, seconds, copies, state, writer):
    outcome = {"error": "the leader died"}
    try:
        sandbox = Sandbox.prepare(limits, state=state, layers=layers)
        folder = f"{state}/session"
        os.mkdir(folder, 0o700)
        if uid is not None:
            os.chown(folder, uid, uid)
        read_end, write_end = os.pipe()
        leader = os.fork()
        if leader == 0:
            os.close(read_end)
            try:
                outcome = _leader(act, sandbox, folder, uid, watch, seconds, copies)
            except BaseException:
                outcome = {"error": traceback.format_exc()}
            with contextlib.suppress(BaseException):
                os.write(write_end, json.dumps(outcome).encode())
            os._exit(0)
        os.close(write_end)
        text = b""
        while part := os.read(read_end, 1 << 16):
            text += part
        os.waitpid(leader, 0)
        outcome = json.loads(text) if text else outcome
    except BaseException:
        outcome = {"error": traceback.format_exc()}
    os.write(writer, json.dumps(outcome).encode())
    os._exit(0)


def _leader(act, sandbox, folder, uid, watch, seconds, copies):
    identity.hide()
    confinement = sandbox.confine(folder, uid=uid)
    entrance = confinement.entrance()
    reader, writer = os.pipe()
    worker = os.fork()
    if worker == 0:
        try:
            os.setsid()
            os.chdir(confinement.folder)
            entrance.enter()
            answer = {"value": act()}
        except BaseException:
            answer = {"error": traceback.format_exc()}
        with contextlib.suppress(BaseException):
            os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    confinement.notifier.copies = worker if copies else None
    listener = entrance.admit()
    text, watched, until = b"", [reader, *([listener] if listener is not None else [])], time.monotonic() + seconds
    peak = {"memory": 0, "unlinked": 0, "processes": 0, "threads": 0}
    while time.monotonic() < until:
        ready = select.select(watched, [], [], 0.02)[0]
        if listener in ready and not confinement.notifier.handle(listener):
            watched.remove(listener)
        usage = confinement.meter.read(deep=True)
        peak = {name: max(most, getattr(usage, name)) for name, most in peak.items()}
        if reader in ready:
            text = os.read(reader, 1 << 16)
            break
    outcome = json.loads(text) if text else {"error": "the worker gave no answer"}
    outcome["leader"] = watch(confinement) if watch else None
    outcome["denials"] = dict(confinement.notifier.denials)
    outcome["peak"] = peak
    done = confinement.end()
    outcome["killed"], outcome["left"] = done.count, list(done.left)
    status = done.statuses.get(worker)
    outcome["status"] = os.waitpid(worker, 0)[1] if status is None else status
    return outcome
