"""Loads a state: the fast way, and where something does not load, the careful one that finds out which variables."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from executor.languages.channel import LostName, StateHead
from executor.languages.mending import Broken, Mender
from executor.languages.reasons import cell_of, told_name, type_name
from executor.languages.rebuilding import Loading, under_way
from executor.languages.statefile import Source
from executor.languages.surroundings import Surroundings
from executor.languages.versions import Checks


def load(
    source: Source, loading: Loading, names: dict[str, Any], surroundings: Surroundings
) -> tuple[list[str], list[LostName], dict[str, int]]:
    """Put what `source` holds into `names`: (names that came back, those that did not, the cells that made them).

    Raises whatever a state that is wrong in itself raises; `names` is unchanged then.
    """
    head = source.head
    with warnings.catch_warnings(), under_way(loading):
        warnings.simplefilter("ignore")
        try:
            unpickler: Any = _Unpickler(source.rewind(), head)
            extra, cells, values = _values(unpickler, surroundings)
            broken: dict[Any, str] = {}
        except BaseException:
            surroundings.undo()
            loading.cells.clear()
            loading.classes.clear()
            unpickler = _Mender(source.rewind(), head)
            extra, cells, values = _values(unpickler, surroundings)
            broken = _broken(unpickler, values, loading)
    lost = [*head.lost]
    found = []
    for key, value in values:
        name = told_name(key)
        if key in broken:
            kind = "?" if type(value) is Broken else type_name(type(value))
            lost.append({"name": name, "type": kind, "reason": broken[key], "cell": cell_of(cells, key)})
        else:
            names[key] = value
            found.append(name)
    surroundings.apply(extra, early=False)
    for entry in lost:
        cells.pop(entry["name"], None)
    return found, lost, cells


def _values(
    unpickler: Any, surroundings: Surroundings
) -> tuple[Mapping[str, bytes], dict[str, int], list[tuple[Any, Any]]]:
    unpickler.load()  # what stands already
    extra, cells = unpickler.load()
    surroundings.apply(extra, early=True)
    values = []
    while (entry := unpickler.load()) is not None:
        values.append((entry[0], entry[1]))
    return extra, cells, values


def _broken(mender: Mender, values: list[tuple[Any, Any]], loading: Loading) -> dict[Any, str]:
    stop = {id(value) for value in loading.standing.values()} | {id(loading), id(mender)}
    stop |= {id(vars(module)) for module in list(sys.modules.values()) if type(module) is ModuleType}
    clean: set[int] = set()
    found: dict[Any, str] = {}
    for key, value in values:
        if (reason := mender.reason_within(value, clean, stop)) is not None:
            found[key] = reason
    return found


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, head: StateHead) -> None:
        super().__init__(file)
        self._checks = Checks(head)

    def find_class(self, module: str, name: str) -> Any:
        self._checks.check(module, name)
        return super().find_class(module, name)


class _Mender(Mender):
    def __init__(self, file: Any, head: StateHead) -> None:
        super().__init__(file)
        self._checks = Checks(head)

    def find_class(self, module: str, name: str) -> Any:
        self._checks.check(module, name)
        return super().find_class(module, name)
