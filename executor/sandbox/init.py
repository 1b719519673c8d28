"""Init: the first process of a session's own process ids. It reaps orphans, and the kernel ends the session with it.

It waits for one thing only, the end of its leader, and holds next to no memory: on x86_64 a few instructions in one
page make the last system calls of its life, the first of which give back all that the fork has left it with. Python
would keep two megabytes a session for the same wait. Elsewhere it waits in Python.

Sources: pid_namespaces(7), munmap(2), seccomp(2).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NoReturn

from executor.sandbox import identity, kernel
from executor.sandbox.kernel import PR_SET_PDEATHSIG, X86_64, prctl

_READ, _MUNMAP, _EXIT, _PRCTL = 0, 11, 60, 157
_PR_SET_SECCOMP, _SECCOMP_STRICT = 22, 1
_TOP: Final = 0x7FFFFFFFF000
"""End of a process's part of the address space on x86_64 with four levels of page tables; above it nothing is mapped
that was not asked for by address."""

_CALLS: Final = bytes.fromhex(
    "4889fb"  # mov rbx, rdi           where the calls are listed
    "488b03"  # mov rax, [rbx]         the number of the next one
    "488b7b08"  # mov rdi, [rbx + 8]   and its arguments
    "488b7310"  # mov rsi, [rbx + 16]
    "488b5318"  # mov rdx, [rbx + 24]
    "4883c320"  # add rbx, 32
    "0f05"  # syscall
    "ebe9"  # jmp to the next; the last call does not return
)
"""Makes the system calls of a list, without a stack."""


def start(prepare: Callable[[], None], *, uid: int | None, gid: int | None) -> tuple[int, int]:
    """Fork the init in the calling leader: its process id, and a descriptor on which `release` lets it go on.

    `prepare` runs in it while it still has every right; afterwards it is `uid` and has none. It ends when the
    descriptor is closed, so with its leader at the latest. Raises OSError where it does not come up.
    """
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    life_read, life_write = os.pipe2(os.O_CLOEXEC)
    pid = kernel.plain_fork()
    if pid == 0:
        os.close(ready_read)
        os.close(life_write)
        _be(prepare, ready_write, life_read, uid, gid)
    os.close(ready_write)
    os.close(life_read)
    said = os.read(ready_read, 200)
    os.close(ready_read)
    if said != b"+":
        os.close(life_write)
        os.waitpid(pid, 0)
        raise OSError(f"the session's init did not start: {said.decode('utf-8', 'replace') or 'it died'}")
    return pid, life_write


def release(life: int) -> None:
    """The leader has its new root: the init gives its rights away and waits. `life` must stay open."""
    os.write(life, b"+")


def _be(prepare: Callable[[], None], ready: int, life: int, uid: int | None, gid: int | None) -> NoReturn:
    try:
        prepare()
        os.write(ready, b"+")
        if os.read(life, 1) != b"+":
            os._exit(1)
        os.chdir("/")
        identity.drop(uid, gid)
        identity.hide()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        kernel.default_signals()
        # a parent that ignores them has its children reaped by the kernel
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        os.closerange(0, life)
        os.closerange(life + 1, 1 << 16)
        if X86_64:
            with suppress(OSError):  # a host may forbid memory that is run
                _wait_without_memory(life)
        os.read(life, 1)
    except BaseException as error:
        with suppress(BaseException):
            os.write(ready, repr(error).encode()[:200])
    os._exit(0)


def _wait_without_memory(life: int) -> NoReturn:
    """Unmap everything but two or three pages, allow nothing but reading and ending, read, end. Raises OSError."""
    page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(page))
    calls = [(_MUNMAP, low, high - low, 0) for low, high in _gaps([(start, start + 1), kernel.thread_block()])]
    calls += [
        (_PRCTL, _PR_SET_SECCOMP, _SECCOMP_STRICT, 0),
        (_READ, life, 0, 1),  # the end of the file: no byte is ever written, and there is no place for one
        (_EXIT, 0, 0, 0),
    ]
    page[: len(_CALLS)] = _CALLS
    listed = -len(_CALLS) % 8 + len(_CALLS)
    for place, call in enumerate(calls):
        struct.pack_into("=4Q", page, listed + 32 * place, *call)
    kernel.make_executable(start, mmap.PAGESIZE)
    ctypes.CFUNCTYPE(None, ctypes.c_void_p)(start)(start + listed)
    raise AssertionError("the last call does not return")


def _gaps(kept: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of whole pages of the address space in which nothing of `kept` lies."""
    found, low = [], 0
    for start, end in sorted(kept):
        if low < (high := start - start % mmap.PAGESIZE):
            found.append((low, high))
        low = max(low, end + -end % mmap.PAGESIZE)
    return [*found, (low, _TOP)]
