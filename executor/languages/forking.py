"""Forks a process that is no child of this one, so that the guest's own os.wait() never meets it."""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from executor.languages.guest import signal_core

_fork, _waitpid, _waitid, _exit = os.fork, os.waitpid, os.waitid, os._exit
_stat, _kill, _getpid = os.stat, os.kill, os.getpid
_getsignal, _signal, _sigpending = signal_core.getsignal, signal_core.signal, signal_core.sigpending
_mask, _all_signals = signal_core.pthread_sigmask, signal.valid_signals()

_P_ALL, _LOOK = os.P_ALL, os.WEXITED | os.WNOHANG | os.WNOWAIT
_DEFAULT = signal_core.SIG_DFL
_BLOCK, _SETMASK = int(signal.SIG_BLOCK), int(signal.SIG_SETMASK)
_CLONE = {"x86_64": 56, "aarch64": 220}.get(platform.machine()) if sys.maxsize > 2**32 else None
_CLONE_PARENT, _SIGCHLD = 0x8000, int(signal.SIGCHLD)
_GLIBC = (2, 34)
"""Oldest C library whose raise(), abort() and pthread_kill() ask the kernel who they are; others remember it."""
_LAST_PYTHON = (3, 12)
"""Later ones hold a lock of the whole runtime from before a fork to after it: no Python code may run in between."""


class _Calls:
    """What CPython's os.fork() is made of, with the interpreter's lock held throughout.

    Sources: CPython, Modules/posixmodule.c, os_fork_impl, PyOS_BeforeFork; clone(2).
    """

    def __init__(self, clone: int) -> None:
        """Raises AttributeError where the C library or the interpreter has not what it takes."""
        libc = ctypes.PyDLL(None)
        libc.gnu_get_libc_version.restype = ctypes.c_char_p
        version = tuple(int(part) for part in libc.gnu_get_libc_version().split(b".")[:2])
        if version < _GLIBC:
            raise AttributeError(f"glibc {version} is too old")
        libc.syscall.restype = ctypes.c_long
        libc.syscall.argtypes = [ctypes.c_long] * 6
        self._syscall, self._number = libc.syscall, clone
        self._before = ctypes.pythonapi.PyOS_BeforeFork
        self._in_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
        self._in_child = ctypes.pythonapi.PyOS_AfterFork_Child
        for call in (self._before, self._in_parent, self._in_child):
            call.restype = None

    def clone(self, flags: int) -> int:
        """As os.fork(), by clone(2) with `flags`; -1 where that is refused. Only where there is one thread.

        In the child all signals are blocked.
        """
        # no handler of the guest's may raise between the parts
        blocked = _mask(_BLOCK, _all_signals)
        pid: int = -1
        try:
            self._before()
            try:
                pid = self._syscall(self._number, flags, 0, 0, 0, 0)
            finally:
                (self._in_parent if pid else self._in_child)()
        finally:
            if pid:
                _mask(_SETMASK, blocked)
        return pid


def _calls() -> _Calls | None:
    try:
        return _Calls(_CLONE) if _CLONE and sys.version_info[:2] <= _LAST_PYTHON else None
    except (AttributeError, ValueError):
        return None


_CALLS = _calls()


def apart(work: Callable[[], Any]) -> bool:
    """Do `work` in a fork of this process, which goes on at once; False where no process is to be had.

    Signals may be blocked in it, and the guest's handlers are in place: `work` changes both, in that order.
    The new process is a child of our parent, or of whoever takes in orphans: they reap it.
    """
    pid = _sibling()
    if pid == 0:
        _do(work)
    return pid > 0 or _grandchild(work)


def _sibling() -> int:
    """A fork whose parent is ours: 0 in it, its process id here, -1 where that cannot be.

    Half the time of a grandchild, whose parent has to be born and to die first. With more threads than this one it
    would have to be libc's own fork, which knows all the locks that another may hold.
    """
    try:
        alone = _stat("/proc/self/task").st_nlink == 3
    except OSError:
        return -1
    return _CALLS.clone(_CLONE_PARENT | _SIGCHLD) if _CALLS and alone else -1


def _grandchild(work: Callable[[], Any]) -> bool:
    handler = _getsignal(_SIGCHLD)
    quiet = callable(handler) and _SIGCHLD not in _sigpending()
    heard = _has_ended_child()
    if quiet:
        # a handler of the guest's must not hear of our child, on whichever thread the signal comes
        _signal(_SIGCHLD, _DEFAULT)
    try:
        child = _fork()
        if child == 0:
            _fork_again(work)
        return _wait_for(child) == 0
    except OSError:
        return False
    finally:
        if quiet:
            # once more: it waits where this thread blocks it, and to set the default again throws it away
            _signal(_SIGCHLD, _DEFAULT)
            _signal(_SIGCHLD, handler)
            if not heard and _has_ended_child():
                # one of the guest's own, of which the signal was thrown away
                _kill(_getpid(), _SIGCHLD)


def _has_ended_child() -> bool:
    try:
        return _waitid(_P_ALL, 0, _LOOK) is not None
    except ChildProcessError:
        return False


def _fork_again(work: Callable[[], Any]) -> NoReturn:
    code = 1
    try:
        inner = _fork()
        code = 0
        if inner == 0:
            _do(work)
    finally:
        _exit(code)


def _do(work: Callable[[], Any]) -> NoReturn:
    try:
        work()
    finally:
        _exit(0)


def _wait_for(child: int) -> int:
    """The child's wait status; 0 where the guest has the kernel throw them away."""
    while True:
        try:
            return _waitpid(child, 0)[1]
        except InterruptedError:
            continue
        except ChildProcessError:
            return 0
