"""Ways to hold memory, each run by a process of its own: what pytest itself holds would be in every fork of it."""

import contextlib
import dataclasses
import json
import mmap
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from executor.sandbox.confinement import Layers
from executor.sandbox.limits import MIB
from tests.sandbox.confined import confined

ROOT = Path(__file__).parent.parent.parent
HELD = 120 * MIB
"""Bytes that a holder of one process takes, of random content: equal pages might be merged."""
LOOKED = 2.0
"""Seconds within which the leader has looked, however busy the machine is."""


def nothing() -> None:
    time.sleep(LOOKED)


def heap() -> None:
    held = bytearray(os.urandom(1)) * HELD
    time.sleep(LOOKED)
    del held


def memfd() -> None:
    files = [os.memfd_create("x") for _ in range(HELD // (8 * MIB))]
    for fd in files:
        os.write(fd, b"x" * (8 * MIB))
    time.sleep(LOOKED)


def forgotten() -> None:
    """Shared memory that no page table knows any more."""
    held = mmap.mmap(-1, HELD)
    for at in range(0, HELD, MIB):
        held[at : at + MIB] = b"x" * MIB
    held.madvise(mmap.MADV_DONTNEED)
    time.sleep(LOOKED)


def sockets() -> None:
    """Full buffers of unix sockets, in as many processes as descriptors need."""

    def fill() -> None:
        ends = [end for _ in range(110) for end in socket.socketpair()]
        for end in ends:
            end.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    end.send(b"x" * 65536)
        time.sleep(LOOKED)

    _in_children(fill)


def shared() -> None:
    """Pages that four children have from their parent."""
    held = bytearray(os.urandom(1)) * (150 * MIB)
    _in_children(lambda: time.sleep(LOOKED))
    del held


def _in_children(work: Callable[[], object]) -> None:
    children = []
    for _ in range(4):
        pid = os.fork()
        if pid == 0:
            work()
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


HOLDERS = {act.__name__: act for act in (nothing, heap, memfd, forgotten, sockets, shared)}


def peak_memory(holder: str, layers: Layers) -> int:
    """The most bytes that the leader of a confined holder measured."""
    command = [sys.executable, "-m", __name__, holder, json.dumps(dataclasses.asdict(layers))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    outcome: dict[str, Any] = json.loads(done.stdout)
    assert not outcome["error"], outcome["error"]
    return outcome["peak"]["memory"]


if __name__ == "__main__":
    print(json.dumps(dataclasses.asdict(confined(HOLDERS[sys.argv[1]], layers=Layers(**json.loads(sys.argv[2]))))))
