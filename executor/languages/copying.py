"""The forked copy of a worker that saves its state: it shares nothing that the guest could notice, and has a clock."""

from __future__ import annotations

import builtins
import copyreg
import gc
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from executor.languages import forking, openfiles
from executor.languages.reasons import Overdue

NAME_SECONDS = 4.0
"""Seconds that one variable may take to be pickled."""
ALL_SECONDS = 14.0
"""Seconds for all of them; what is left then is lost."""
CPU_SECONDS = 40
"""Seconds of a processor for a copy, whatever the guest's objects do about the clock."""
DEEP = 60_000
"""Recursion limit of a copy: pickle descends into what it stores."""
DEEP_STACK = 100 * 1024 * 1024
"""Bytes of stack that go with it; the kernel leaves at least 128 MiB below a stack."""

_clock = time.monotonic
_setitimer, _signal, _mask = signal.setitimer, signal.signal, signal.pthread_sigmask
_IGNORED = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
"""As every Python has it: what they tell comes as an exception, too."""
_PRISTINE: dict[str, Any] = {}


def prepare() -> None:
    """Remember what is whole before any guest has changed it. Once, in the zygote."""
    _PRISTINE["names"] = [(vars(module), dict(vars(module))) for module in (builtins, copyreg, pickle)]
    _PRISTINE["modules"] = dict(sys.modules)


def in_copy(work: Callable[[], None]) -> bool:
    """Do `work` in a copy of this process, which goes on at once; False where no copy is to be had."""

    def as_copy() -> None:
        _become_copy()
        work()

    return forking.apart(as_copy)


def _become_copy() -> None:
    """In the forked copy: share nothing with the original that it could notice."""
    for module, names in _PRISTINE["names"]:
        module.update(names)
    openfiles.cut_off()
    gc.disable()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with suppress(OSError, ValueError):
            _signal(number, signal.SIG_IGN if number in _IGNORED else signal.SIG_DFL)
    _mask(signal.SIG_SETMASK, ())
    for name, module in _PRISTINE["modules"].items():
        if sys.modules.get(name) is not module:
            sys.modules[name] = module
    with suppress(OSError):
        os.nice(5)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(usage.ru_utime + usage.ru_stime)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CPU, (spent + CPU_SECONDS, spent + CPU_SECONDS))
    with suppress(OSError, ValueError):
        _, hard = resource.getrlimit(resource.RLIMIT_STACK)
        if hard == resource.RLIM_INFINITY or hard >= DEEP_STACK:
            resource.setrlimit(resource.RLIMIT_STACK, (DEEP_STACK, hard))
            if sys.version_info < (3, 12):  # later ones count C frames by a limit of their own
                sys.setrecursionlimit(DEEP)


@contextmanager
def alarm() -> Iterator[Callable[[float], None]]:
    """Interrupts guest code that takes too long with Overdue; gives a function that sets the clock, 0 to stop it."""
    until = _clock() + ALL_SECONDS

    def ring(signum: int, frame: FrameType | None) -> None:
        raise Overdue

    def clock(seconds: float) -> None:
        # again and again: the guest's code may swallow one
        if seconds:
            seconds = max(0.001, min(seconds, until - _clock()))
        _setitimer(signal.ITIMER_REAL, seconds, 0.2 if seconds else 0)

    before = _signal(signal.SIGALRM, ring)
    timer = _setitimer(signal.ITIMER_REAL, 0)
    masked = _mask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    try:
        yield clock
    finally:
        _setitimer(signal.ITIMER_REAL, 0)
        _mask(signal.SIG_SETMASK, masked)
        _signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        _setitimer(signal.ITIMER_REAL, *timer)
