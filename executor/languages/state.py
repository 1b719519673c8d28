"""The state of a Python session: dumped from the live namespace, loaded into a fresh one."""

from __future__ import annotations

import builtins
import dataclasses
import errno
import os
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

from executor.languages import openfiles, ownmodules
from executor.languages.channel import MAX_PROBLEM, LostName, ProtocolError
from executor.languages.copying import NAME_SECONDS, alarm, in_copy
from executor.languages.pickling import StatePickler
from executor.languages.reasons import bounded, cell_of, reason_of, told_name, type_name
from executor.languages.rebuilding import Loading
from executor.languages.restoring import load
from executor.languages.shell import NotebookShell
from executor.languages.statefile import Sink, Source
from executor.languages.surroundings import Surroundings
from executor.languages.versions import versions

_NEVER = frozenset(
    {"_", "__", "___", "_i", "_ii", "_iii", "__builtin__", "__builtins__", "__warningregistry__"}
    | {"__name__", "__doc__", "__package__", "__loader__", "__spec__", "__file__"}
)
"""Names that are the interpreter's whatever they hold."""
_FULL = frozenset({errno.EFBIG, errno.ENOSPC, errno.EDQUOT})
"""Nothing more can be written."""


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
        if not in_copy(lambda: self._write(path, limit, frozenset(without))):
            # no further process is to be had
            self._write(path, limit, frozenset(without))

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

    def _dump(self, sink: Sink, limit: int, without: frozenset[str]) -> None:
        kept = [(key, value, name) for key, value in self._own() if (name := told_name(key)) not in without]
        cells = self._cells()
        extra = self._surroundings.collect()
        lost: list[LostName] = []
        beside = self._lost_beside()
        sink.leave_room([name for _, _, name in kept] + [entry["name"] for entry in beside])
        pickler = StatePickler(sink, self._standing(), self._folder)
        pickler.dump((extra, cells))
        names: list[str] = []
        with alarm() as clock, warnings.catch_warnings():
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
        sink.finish(names, [*lost, *beside], versions(pickler.packages))

    def _lost_beside(self) -> list[LostName]:
        """What is no variable and does not come back."""
        found: list[LostName] = []
        with alarm() as clock:
            # the guest may have broken whatever this looks at
            for tell in (lambda: ownmodules.changed(self._folder), self._surroundings.lost):
                with suppress(BaseException):
                    clock(NAME_SECONDS)
                    found += tell()
                clock(0)
        return found

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

    def restore(self, path: str) -> tuple[list[str], list[LostName], str, dict[str, int]]:
        """Load `path` into the namespace: (names, lost, problem, cells). With a problem, nothing has changed."""
        try:
            source = Source(self._folder, path)
        except (ProtocolError, OSError) as error:
            return [], [], bounded(str(error), MAX_PROBLEM), {}
        try:
            loading = Loading(self._standing(), self._folder)
            names, lost, cells = load(source, loading, self._shell.user_ns, self._surroundings)
            return names, lost, "", cells
        except BaseException as error:
            with suppress(BaseException):
                self._surroundings.undo()
            said = bounded(f"{type_name(type(error))}: {error}", 300)
            return [], list(source.head.lost), f"The saved state could not be loaded: {said}", {}
        finally:
            source.close()
