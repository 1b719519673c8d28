"""The variables that a cell made or changed, told by type and size without asking any object of the guest's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, Literal

import numpy as np
import pandas as pd

from executor.languages.bundles import clean_text
from executor.languages.channel import MAX_VARIABLES, VariableData

MAX_NAME = 100
"""Characters kept of a name, and of a type."""
MAX_SUMMARY = 100
MAX_SHOWN = 40
"""Characters of a text up to which it is shown itself."""

_SIZED = frozenset({list, dict, set, bytearray})
"""Types whose values change in place; their length tells so."""
_ONES = frozenset({tuple, frozenset, range, *_SIZED})
_PASSING = frozenset({"_", "__", "___", "__builtins__", "__warningregistry__"})
"""What changes by itself."""
_SCALARS: frozenset[type] = frozenset({np.bool_, np.int32, np.int64, np.uint8, np.float32, np.float64})
_SHAPED = frozenset({"geopandas", "polars", "pyarrow", "scipy", "torch", "xarray"})
"""Packages whose objects are asked for their shape."""
_DEFINITIONS = (ModuleType, FunctionType, BuiltinFunctionType, type)
_name_of = type.__dict__["__name__"].__get__
_module_of: Callable[[type], Any] = type.__dict__["__module__"].__get__
_array_shape = np.ndarray.shape.__get__

Mark = tuple[int, Any]
"""What tells that a value is still the same: its identity, and its size where the type has one."""


class Variables:
    """Watches the namespace `names`; what is in `hidden` under the same name, and not replaced, is not the guest's."""

    def __init__(self, names: dict[str, Any], hidden: dict[str, Any]) -> None:
        self._names = names
        self._hidden = hidden
        self._marks: dict[str, Mark] = {}
        self.cells: dict[str, int] = {}
        """The number of the cell that made or last changed a variable, private ones, functions and modules, too."""
        self.changes(0)
        self.cells.clear()

    def adopt(self, cells: Mapping[str, int]) -> None:
        """Variables were put into the namespace that `cells` made; nothing of them is told."""
        self.changes(0)
        for name in [name for name, number in self.cells.items() if not number]:
            del self.cells[name]
        self.cells.update(cells)

    def changes(self, number: int) -> list[VariableData]:
        """What is new or changed after cell `number`, at most `MAX_VARIABLES`, the newest kept.

        Modules, functions, classes and names that begin with `_` are left out: the code says what they are.
        """
        hidden, before, cells = self._hidden, self._marks, self.cells
        marks: dict[str, Mark] = {}
        found: list[tuple[str, Any, Literal["new", "changed"]]] = []
        for name, value in list(self._names.items()):
            if type(name) is not str or (name in hidden and hidden[name] is value) or name in _PASSING:
                continue
            kind = type(value)
            size = len(value) if kind in _SIZED else _shape(kind, value) if kind in _TABLES else None
            mark = marks[name] = (id(value), size)
            if (former := before.get(name)) != mark:
                cells[name] = number
                if name[:1] == "_":
                    continue
                found.append((name, value, "changed" if former else "new"))
        if len(marks) < len(cells):
            for name in cells.keys() - marks.keys():
                del cells[name]
        self._marks = marks
        told = [
            described
            for name, value, change in found[-2 * MAX_VARIABLES :]
            if (described := describe(name, value, change)) is not None
        ]
        return told[-MAX_VARIABLES:]


def describe(name: str, value: Any, change: Literal["new", "changed"]) -> VariableData | None:
    """`value` by type and size; None for definitions. Runs no code of the guest's for what it has defined itself."""
    kind = type(value)
    if issubclass(kind, _DEFINITIONS):
        return None
    try:
        summary = _summary(kind, value)
    except Exception:
        summary = ""  # objects of a library that the guest has changed
    return {
        "name": _bounded(name, MAX_NAME),
        "type": _bounded(_name_of(kind), MAX_NAME),
        "summary": _bounded(summary, MAX_SUMMARY),
        "change": change,
    }


def _summary(kind: type, value: Any) -> str:
    if kind is bool or value is None:
        return f"= {value}"
    if kind is int:
        bits = int.bit_length(value)
        return f"= {value}" if bits <= 64 else f"of {bits:,} bits"
    if kind in (float, complex):
        return f"= {value!r}"
    if kind in _SCALARS:
        return f"= {value.item()!r}"
    if kind in (str, bytes):
        unit = "characters" if kind is str else "bytes"
        return f"= {value!r}" if len(value) <= MAX_SHOWN else f"of {len(value):,} {unit}"
    if kind in _ONES:
        return f"of {len(value):,}"
    if kind is np.ndarray:
        return f"{_times(_array_shape(value))} {value.dtype}"
    if kind is pd.Series:
        return f"of {len(value):,} {value.dtype}"
    if kind in _TABLES:
        return _times(_shape(kind, value))
    if str(_module_of(kind)).partition(".")[0] in _SHAPED:
        shape = value.shape
        return _times(shape) if isinstance(shape, tuple) and all(type(n) is int for n in shape[:8]) else ""
    return ""


def _shape(kind: type, value: Any) -> Any:
    try:
        return _array_shape(value) if kind is np.ndarray else value.shape
    except Exception:
        return None


def _times(shape: tuple[Any, ...] | None) -> str:
    if shape is None:
        return ""
    return "x".join(str(n) for n in shape[:8]) if shape else "of no dimension"


def _bounded(text: str, limit: int) -> str:
    text = clean_text(text).replace("\n", " ")
    return text if len(text) <= limit else text[: limit - 1] + "…"


_TABLES: frozenset[type] = frozenset({np.ndarray, pd.DataFrame, pd.Series})
