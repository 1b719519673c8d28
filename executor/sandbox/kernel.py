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

PR_SET_PDEATHSIG = 1
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47

_PRCTL = 157 if X86_64 else 167


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


def pause_forever() -> None:
    """Sleep until killed; signals that have no handler do not end it."""
    pause = _LIBC.pause
    while True:
        pause()


def _signed(value: int) -> int:
    value %= _UINT64
    return value - _UINT64 if value >= _UINT64 // 2 else value
