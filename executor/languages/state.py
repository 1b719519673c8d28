"""The state of a Python session: dumped from the live namespace, loaded into a fresh one."""

from __future__ import annotations

import builtins
import copyreg
import dataclasses
import gc
import os
import pickle
import platform
import random
import resource
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import matplotlib as mpl
import numpy as np

from executor.languages import openfiles
from executor.languages.channel import LostName, ProtocolError, StateHead
from executor.languages.mending import Broken, Mender, Unloadable
from executor.languages.pickling import StatePickler
from executor.languages.reasons import Overdue, bounded, reason_of, type_name
from executor.languages.rebuilding import Loading, under_way
from executor.languages.shell import NotebookShell
from executor.languages.statefile import Sink, Source
from executor.languages.surroundings import Surroundings, note_defaults

NAME_SECONDS = 4.0
"""Seconds that one variable may take to be pickled."""
ALL_SECONDS = 14.0
"""Seconds for all of them; what is left then is lost."""
CPU_SECONDS = 40
DEEP = 60_000
"""Recursion limit of a copy: pickle descends into what it stores."""
DEEP_STACK = 100 * 1024 * 1024
"""Bytes of stack that go with it; the kernel leaves at least 128 MiB below a stack."""

_NEVER = frozenset(
    {"_", "__", "___", "_i", "_ii", "_iii", "__builtin__", "__builtins__", "__warningregistry__"}
    | {"__name__", "__doc__", "__package__", "__loader__", "__spec__", "__file__"}
)
"""Names that are the interpreter's whatever they hold."""
_CODE = frozenset({"make_function", "CodeType"})
_fork, _waitpid, _exit, _clock = os.fork, os.waitpid, os._exit, time.monotonic
_setitimer, _signal, _mask = signal.setitimer, signal.signal, signal.pthread_sigmask
_getsignal, _sigpending = signal.getsignal, signal.sigpending
_IGNORED = frozenset({signal.SIGPIPE, signal.SIGXFSZ})
"""As every Python has it: what they tell comes as an exception, too."""
_PRISTINE: dict[str, Any] = {}


def prepare() -> None:
    """Remember what is whole before any guest has changed it. Once, in the zygote."""
    note_defaults()
    _PRISTINE["names"] = [(vars(module), dict(vars(module))) for module in (builtins, copyreg, pickle)]
    _PRISTINE["modules"] = dict(sys.modules)


class State:
    """Saves and restores the state of one worker."""

    def __init__(self, shell: NotebookShell, folder: Path, cells: Callable[[], dict[str, int]]) -> None:
        """`cells` gives the number of the cell that made or last changed a variable, by name."""
        self._shell = shell
        self._folder = str(folder)
        self._cells = cells
        self._surroundings = Surroundings(shell, folder)

    # Saving

    def save(self, path: str, *, limit: int, without: list[str], fork: bool) -> None:
        """Write the state to `path`; with `fork`, a copy of this process does it, and this returns at once."""
        self._surroundings.before_fork()
        if not fork:
            self._write(path, limit, frozenset(without))
            return
        openfiles.flush_all(list(self._shell.user_ns.values()))
        handler, waits = _getsignal(signal.SIGCHLD), signal.SIGCHLD in _sigpending()
        try:
            child = _fork()
        except OSError as error:
            self._say_failed(path, f"The process could not be copied: {error.strerror or error}.")
            return
        if child:
            while True:
                try:
                    _waitpid(child, 0)
                except InterruptedError:
                    continue
                except ChildProcessError:
                    pass
                break
            if callable(handler) and not waits:
                # a handler of the guest's must not hear of our child: the default throws the signal away
                _signal(signal.SIGCHLD, signal.SIG_DFL)
                _signal(signal.SIGCHLD, handler)
            return
        try:
            # twice, so that the guest's own os.wait() never meets the copy
            if _fork() == 0:
                self._become_copy()
                self._write(path, limit, frozenset(without))
        finally:
            _exit(0)

    def _become_copy(self) -> None:
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
                if _PRISTINE["deep"]:
                    sys.setrecursionlimit(DEEP)

    def _write(self, path: str, limit: int, without: frozenset[str]) -> None:
        try:
            sink = Sink(self._folder, path, limit)
        except OSError:
            return  # nowhere to say it: the leader's deadline does
        try:
            self._dump(sink, limit, without)
        except BaseException as error:
            with suppress(BaseException):
                sink.fail(f"The state could not be written: {bounded(str(error)) or type_name(type(error))}.")
        finally:
            with suppress(OSError):
                sink.close()

    def _say_failed(self, path: str, problem: str) -> None:
        with suppress(OSError):
            sink = Sink(self._folder, path, 0)
            try:
                sink.fail(problem)
            finally:
                sink.close()

    def _dump(self, sink: Sink, limit: int, without: frozenset[str]) -> None:
        kept = [(key, value, name) for key, value in self._own() if (name := told_name(key)) not in without]
        cells = self._cells()
        extra = self._surroundings.collect()
        lost: list[LostName] = []
        sink.leave_room([name for _, _, name in kept])
        pickler = StatePickler(sink, self._standing(), self._folder)
        pickler.dump((extra, cells))
        names: list[str] = []
        with _alarm() as clock, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for key, value, name in kept:
                error = self._dump_one(pickler, sink, key, value, clock)
                if error is None:
                    names.append(name)
                    continue
                reason = reason_of(error, value, pickler.current, limit)
                lost.append(
                    {"name": name, "type": type_name(type(value)), "reason": reason, "cell": cell_of(cells, key)}
                )
        pickler.dump(None)
        sink.finish(names, [*lost], versions(pickler.packages))

    def _dump_one(
        self, pickler: StatePickler, sink: Sink, key: Any, value: Any, clock: Callable[[float], None]
    ) -> BaseException | None:
        start = sink.position
        entry = [key, value]
        pickler.current = value
        try:
            clock(NAME_SECONDS)
            pickler.dump(entry)
            clock(0)
        except BaseException as error:
            clock(0)
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            sink.take_back(start)
            pickler.take_back(entry)
            return error
        return None

    def _own(self) -> Iterator[tuple[Any, Any]]:
        hidden = self._shell.user_ns_hidden
        for key, value in list(self._shell.user_ns.items()):
            if type(key) is str and (key in _NEVER or (key in hidden and hidden[key] is value)):
                continue
            yield key, value

    def _standing(self) -> dict[str, Any]:
        """What a state refers to and does not hold: every worker has it."""
        names, hidden = self._shell.user_ns, self._shell.user_ns_hidden
        found = {
            "names": names,
            "hidden": hidden,
            "shell": self._shell,
            "builtins": vars(builtins),
            "modules": sys.modules,
            "environ": os.environ,
            "path": sys.path,
            "argv": sys.argv,
            "stdin": sys.stdin,
            "stdout": sys.stdout,
            "stderr": sys.stderr,
            "random": random._inst,
            "numpy.random": np.random.mtrand._rand,
            "rcParams": mpl.rcParams,
            "missing": dataclasses.MISSING,
            "keywords": dataclasses.KW_ONLY,
            "factory": dataclasses._HAS_DEFAULT_FACTORY,  # type: ignore[attr-defined]
            "inputs": hidden.get("_ih"),
            "outputs": hidden.get("_oh"),
            "folders": hidden.get("_dh"),
        }
        unique: dict[int, str] = {}
        for name, value in found.items():
            unique.setdefault(id(value), name)
        return {name: value for name, value in found.items() if value is not None and unique[id(value)] == name}

    # Restoring

    def restore(self, path: str) -> tuple[list[str], list[LostName], str, dict[str, int]]:
        """Load `path` into the namespace: (names, lost, problem, cells). With a problem, nothing has changed."""
        try:
            source = Source(self._folder, path)
        except (ProtocolError, OSError) as error:
            return [], [], bounded(str(error), 500), {}
        try:
            return self._load(source)
        except BaseException as error:
            with suppress(BaseException):
                self._surroundings.undo()
            said = bounded(f"{type_name(type(error))}: {error}", 300)
            return [], list(source.head.lost), f"The saved state could not be loaded: {said}", {}
        finally:
            source.close()

    def _load(self, source: Source) -> tuple[list[str], list[LostName], str, dict[str, int]]:
        head = source.head
        loading = Loading(self._standing(), self._folder)
        with warnings.catch_warnings(), under_way(loading):
            warnings.simplefilter("ignore")
            try:
                unpickler: Any = _Unpickler(source.rewind(), head)
                extra, cells, values = self._values(unpickler)
                broken: dict[Any, str] = {}
            except BaseException:
                self._surroundings.undo()
                loading.cells.clear()
                loading.classes.clear()
                unpickler = _Mender(source.rewind(), head)
                extra, cells, values = self._values(unpickler)
                broken = self._broken(unpickler, values, loading)
        lost = [*head.lost]
        names = []
        for key, value in values:
            name = told_name(key)
            if key in broken:
                kind = "?" if type(value) is Broken else type_name(type(value))
                lost.append({"name": name, "type": kind, "reason": broken[key], "cell": cell_of(cells, key)})
            else:
                self._shell.user_ns[key] = value
                names.append(name)
        self._surroundings.apply(extra, early=False)
        for entry in lost:
            cells.pop(entry["name"], None)
        return names, lost, "", cells

    def _values(self, unpickler: Any) -> tuple[Mapping[str, bytes], dict[str, int], list[tuple[Any, Any]]]:
        unpickler.load()  # what stands already
        extra, cells = unpickler.load()
        self._surroundings.apply(extra, early=True)
        values = []
        while (entry := unpickler.load()) is not None:
            values.append((entry[0], entry[1]))
        return extra, cells, values

    def _broken(self, mender: Mender, values: list[tuple[Any, Any]], loading: Loading) -> dict[Any, str]:
        stop = {id(value) for value in loading.standing.values()} | {id(loading), id(mender)}
        stop |= {id(vars(module)) for module in list(sys.modules.values()) if type(module) is ModuleType}
        clean: set[int] = set()
        found: dict[Any, str] = {}
        for key, value in values:
            if (reason := mender.reason_within(value, clean, stop)) is not None:
                found[key] = reason
        return found


class _Checks:
    """What must not be loaded under another Python, or another major version of a package."""

    def __init__(self, head: StateHead) -> None:
        saved = head.versions
        python = saved.get("python", "")
        self._code = _minor(python) == _minor(platform.python_version())
        self._python = python
        self._foreign: dict[str, str] = {}
        for package, version in saved.items():
            if package != "python":
                here = version_of(package)
                if here is not None and here.partition(".")[0] != version.partition(".")[0]:
                    self._foreign[package] = f"was made with {package} {version}, and {here} is here"

    def check(self, module: str, name: str) -> None:
        """Raises Unloadable."""
        if name in _CODE and not self._code:
            here = platform.python_version()
            raise Unloadable(f"code was compiled for Python {self._python}, and {here} is here")
        if self._foreign and (why := self._foreign.get(module.partition(".")[0])) is not None:
            raise Unloadable(why)


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, head: StateHead) -> None:
        super().__init__(file)
        self._checks = _Checks(head)

    def find_class(self, module: str, name: str) -> Any:
        self._checks.check(module, name)
        return super().find_class(module, name)


class _Mender(Mender):
    def __init__(self, file: Any, head: StateHead) -> None:
        super().__init__(file)
        self._checks = _Checks(head)

    def find_class(self, module: str, name: str) -> Any:
        self._checks.check(module, name)
        return super().find_class(module, name)


_FULL = frozenset({27, 28, 122})
"""EFBIG, ENOSPC, EDQUOT: nothing more can be written."""


@contextmanager
def _alarm() -> Iterator[Callable[[float], None]]:
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


def told_name(key: Any) -> str:
    """What a variable is called in a head; names that are no texts are told by their type."""
    if type(key) is str:
        return bounded(key)
    return bounded(repr(key)) if type(key) in (int, float, bool, bytes, type(None)) else f"<{type_name(type(key))}>"


def cell_of(cells: Mapping[str, int], key: Any) -> int | None:
    """The cell that made or last changed a variable, as far as that is known."""
    return cells.get(key) if type(key) is str else None


def versions(packages: set[str]) -> dict[str, str]:
    """Versions of Python and of those packages that are not its own; at most fifty."""
    found = {"python": platform.python_version()}
    for package in sorted(packages - set(sys.stdlib_module_names) - {"executor"})[:200]:
        if len(found) < 49 and (version := version_of(package)) is not None:
            found[bounded(package, 100)] = version
    return found


def version_of(package: str) -> str | None:
    """The version of a package that is loaded or can be; None where it has none."""
    version = getattr(sys.modules.get(package), "__version__", None)
    if not isinstance(version, str):
        try:
            version = metadata.version(package)
        except Exception:
            return None
    return bounded(version, 80)


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]


_PRISTINE["deep"] = sys.version_info < (3, 12)
