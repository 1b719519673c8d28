"""System calls that Python has no function for: thin, typed, errors as OSError."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys

X86_64 = platform.machine() == "x86_64" and sys.maxsize > 2**32
LINUX = sys.platform == "linux"

_LIBC = ctypes.CDLL(None, use_errno=True)
_syscall = _LIBC.syscall
_syscall.restype = ctypes.c_long
# fixed 64-bit arguments: ctypes would pass a Python int as a 32-bit one
_syscall.argtypes = [ctypes.c_long] * 7
_UINT64 = 2**64
_thread_self = _LIBC.pthread_self
_thread_self.restype = ctypes.c_void_p
_RSEQ_AREA = 256
"""Bytes that the kernel may use at most there; now it is 32."""
# with the interpreter's lock held: in the child nobody could give it back
_fork = ctypes.PyDLL(None, use_errno=True).fork

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47

_PRCTL = 157 if X86_64 else 167
_MPROTECT = 10 if X86_64 else 226


def syscall(number: int, *args: int) -> int:
    """Call the kernel; arguments are integers or addresses. Raises OSError, ENOSYS off Linux."""
    if not LINUX:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    padded = [_signed(a) for a in args] + [0] * (6 - len(args))
    result = int(_syscall(number, *padded))
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def prctl(option: int, *args: int) -> int:
    """prctl(2). The numbers of options are constants of this module. Raises OSError."""
    return syscall(_PRCTL, option, *args)


def plain_fork() -> int:
    """fork(2) without what Python's libraries have registered for it: half of a fork's time and memory here.

    Only where there is one thread, so that no lock can be held, and only for a child that seeds its random numbers
    itself where it needs any. Raises OSError.
    """
    pid = int(_fork())
    if pid == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return pid


def thread_block() -> tuple[int, int]:
    """Where libc keeps what it must about the calling thread; the kernel writes there, too, once it is told (rseq(2)).

    Source: glibc, manual/threads.texi, "Restartable Sequences".
    """
    thread = int(_thread_self())
    try:
        offset = ctypes.c_ssize_t.in_dll(_LIBC, "__rseq_offset").value
    except ValueError:
        return thread, thread + 1
    return thread + min(0, offset), thread + max(0, offset) + _RSEQ_AREA


def default_signals() -> None:
    """Forget every signal handler of the calling process; also Python's own."""
    for number in range(1, 65):
        _LIBC.signal(number, None)  # SIG_DFL; the few that take no handler answer with an error


def make_executable(address: int, size: int) -> None:
    """Make whole pages readable and executable, no longer writable. Raises OSError where the host forbids it."""
    syscall(_MPROTECT, address, size, 1 | 4)


def _signed(value: int) -> int:
    value %= _UINT64
    return value - _UINT64 if value >= _UINT64 // 2 else value
