"""What guest code finds around itself in a Python worker: fresh streams, signals, paths, and nobody at a keyboard."""

from __future__ import annotations

import builtins
import ctypes
import faulthandler
import getpass
import io
import os
import random
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, NoReturn, TextIO

import numpy as np

PACKAGES = ".packages/python"
"""Where a session's own packages lie, relative to its folder."""

_RENDERER = "plotly_mimetype+colab"
"""Plotly opens a browser where it finds no notebook of its kinds; so it gives JSON, and HTML that stands alone."""

_TWISTER_WORDS = 624
"""Words of 32 bits that are the state of numpy's global generator, a Mersenne Twister."""

signal_core = import_module("_signal")
"""Below `signal`, whose conversions to enums would be two thirds of what `1 + 1` takes, and cost each worker a quarter
of a megabyte: pages of the zygote's that it must copy to count references."""

_RESET = tuple(
    int(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGINT, signal.SIGPIPE}
)
_fstat = os.fstat
_dup2 = os.dup2
_open, _close = os.open, os.close
_flush_c = ctypes.CDLL(None).fflush
_getrecursionlimit = sys.getrecursionlimit
_setrecursionlimit = sys.setrecursionlimit
_settrace = sys.settrace
_setprofile = sys.setprofile


class Streams:
    """stdin, stdout and stderr over the descriptors 0, 1 and 2, and the way back to them after a cell's mischief."""

    def __init__(self) -> None:
        self._kept = tuple(os.dup(fd) for fd in (1, 2))
        self.open()

    def open(self) -> None:
        """Fresh stream objects. Closing one of them does not close its descriptor."""
        stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        self.stdout, self.stderr = _writer(1), _writer(2)
        for name, stream in (("stdin", stdin), ("stdout", self.stdout), ("stderr", self.stderr)):
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    @contextmanager
    def silent(self) -> Iterator[None]:
        """Let nothing that is printed meanwhile leave the process."""
        nowhere = _open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        for fd in (1, 2):
            _dup2(nowhere, fd)
        _close(nowhere)
        try:
            yield
        finally:
            _flush(self.stdout)
            _flush(self.stderr)
            _flush_c(None)
            for fd, kept in zip((1, 2), self._kept, strict=True):
                _dup2(kept, fd)

    def settle(self) -> list[str]:
        """Flush everything into the pipes and undo replaced or closed streams; a sentence for each undone."""
        notices = []
        for name, ours in (("stdout", self.stdout), ("stderr", self.stderr)):
            current = getattr(sys, name, None)
            if current is not ours:
                _flush(current)
                setattr(sys, name, ours)
                notices.append(f"The cell replaced sys.{name}; it has been put back.")
        for fd, kept in zip((1, 2), self._kept, strict=True):
            try:
                _fstat(fd)
            except OSError:
                _dup2(kept, fd)
                notices.append(f"The cell closed descriptor {fd}; it has been opened again.")
        if self.stdout.closed or self.stderr.closed or getattr(sys.stdin, "closed", True):
            self.open()
        _flush(self.stdout)
        _flush(self.stderr)
        _flush_c(None)
        return notices


def settle_interpreter() -> list[str]:
    """Undo what would break the loop itself: a tiny recursion limit, tracing; a sentence for each undone."""
    notices = []
    if _getrecursionlimit() < 500:
        _setrecursionlimit(1000)
        notices.append("The recursion limit was too small for the interpreter itself; it is 1000 again.")
    _settrace(None)
    _setprofile(None)
    return notices


def take_keyboard_away() -> None:
    """Let `input`, `getpass` and `breakpoint` answer at once with an error instead of waiting for nobody."""
    builtins.input = _no_input
    for name in ("getpass", "unix_getpass", "fallback_getpass"):
        setattr(getpass, name, _no_getpass)
    sys.breakpointhook = _no_breakpoint


def settle_in(folder: str) -> None:
    """Make a forked process its own: signals, random numbers, folder, import paths.

    What is called here for the first time copies pages of the zygote's: the short way is the light one.
    """
    signal.set_wakeup_fd(-1)
    for number in _RESET:
        if signal_core.getsignal(number) not in (None, signal_core.SIG_DFL):
            signal_core.signal(number, signal_core.SIG_DFL)
    signal_core.signal(signal_core.SIGPIPE, signal_core.SIG_IGN)  # as every Python has it: it is an exception, too
    signal_core.pthread_sigmask(signal_core.SIG_SETMASK, ())
    _reseed()
    os.chdir(folder)
    tempfile.tempdir = None
    os.environ["PLOTLY_RENDERER"] = _RENDERER
    sys.argv = [""]
    sys.path[:] = [*import_paths(folder), *(p for p in sys.path if p not in ("", folder))]
    faulthandler.enable(file=2, all_threads=False)


def import_paths(folder: str) -> tuple[str, str]:
    """Where the session's own modules and packages lie."""
    return folder, f"{folder}/{PACKAGES}"


def refresh_imports(paths: tuple[str, ...]) -> None:
    """Let modules written a moment ago be found: the import system caches folders by their time stamp."""
    cache = sys.path_importer_cache
    for path in paths:
        finder = cache.get(path)
        if finder is None:
            cache.pop(path, None)
        elif hasattr(finder, "invalidate_caches"):
            finder.invalidate_caches()


def report_threads(describe: Callable[[BaseException], str]) -> None:
    """Let exceptions that end a thread be reported in short."""

    def hook(args: threading.ExceptHookArgs) -> None:
        if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
            name = args.thread.name if args.thread else "?"
            sys.stderr.write(f"Thread {name} ended with an error.\n{describe(args.exc_value)}\n")

    threading.excepthook = hook


def _writer(fd: int) -> TextIO:
    raw = io.FileIO(fd, "w", closefd=False)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _flush(stream: Any) -> None:
    try:
        stream.flush()
    except Exception:
        return  # a stream of the guest's own making, or a pipe whose reader has gone


def _reseed() -> None:
    random.seed()
    # by its state: what numpy does to spread a seed over it writes to three times as many pages
    words = np.frombuffer(os.urandom(4 * _TWISTER_WORDS), np.uint32)
    np.random.set_state(("MT19937", words, _TWISTER_WORDS, 0, 0.0))


def _no_input(prompt: object = "", /) -> NoReturn:
    raise EOFError("no keyboard here: input() cannot wait for anybody; put the value into the code")


def _no_getpass(*args: object, **kwargs: object) -> NoReturn:
    raise EOFError("no keyboard here: getpass() cannot wait for anybody; put the value into the code")


def _no_breakpoint(*args: object, **kwargs: object) -> NoReturn:
    raise EOFError("no keyboard here: breakpoint() cannot wait for commands; print the values instead")
