"""The pickler of a saved state: one graph for all variables, functions on the live namespace, nothing silently altered.

cloudpickle knows how to take functions and classes apart; what differs here: functions stay bound to the session's own
globals, closures share their variables, classes and enums come back whole without running what made them, and what
pickle would copy wrongly is refused.
"""

from __future__ import annotations

import _io
import _weakrefset
import abc
import ctypes
import functools
import gc
import pickle
import sys
import tempfile
import types
import typing
import weakref
from collections import OrderedDict
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

import cloudpickle
import numpy as np

from executor.languages import rebuilding
from executor.languages.arrays import check_array, reduce_array
from executor.languages.openfiles import KINDS, reduce_file
from executor.languages.reasons import Unsaveable
from executor.languages.reducers import filled_by_the_guest, reduce_container, reduce_dispatcher, reduce_error

_NO_FILE = "<dynamic-code>"
_take_apart: Callable[[types.CodeType], tuple[Any, tuple[Any, ...]]] = cloudpickle.Pickler.dispatch_table[
    types.CodeType
]
_dump = pickle.Pickler.dump
_modules = sys.modules
_dict_of: Callable[[type], Mapping[str, Any]] = type.__dict__["__dict__"].__get__
_referents = gc.get_referents
_CachedFunction = type(functools.lru_cache(len))
_SLOT = types.MemberDescriptorType
_CALLABLES = (types.FunctionType, classmethod, staticmethod, property)
_OURS_BY_NATURE = frozenset(
    {"__dict__", "__weakref__", "_abc_impl", "__slots__", "__module__", "__qualname__", "__annotate_func__"}
)
"""What making a class gives it."""
_UNNAMED = {kind: name for name, kind in vars(types).items() if type(kind) is type}
_HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE, which types made by a class statement have."""
_PLAIN_BASES = (int, str, float, bytes, complex, tuple)


class _Standing:
    """Stands for what every worker has."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Globals:
    """Stands for the live globals of a module."""

    def __init__(self, name: str) -> None:
        self.name = name


class _Attributes:
    """Attributes of a class, set as soon as they are loaded: methods must be there before instances are."""

    def __init__(self, kind: type, names: dict[str, Any], registered: list[type]) -> None:
        self.kind, self.names, self.registered = kind, names, registered


class StatePickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Writes one pickle after the other to `sink`, all with one memo. `standing` is what is not saved but found.

    `current` is what was looked at last: on failure the culprit. `packages` are those whose types were met.
    """

    def __init__(self, sink: Any, standing: Mapping[str, object], folder: str) -> None:
        super().__init__(sink, protocol=5)
        self.folder = folder
        self.current: object = None
        self.packages: set[str] = set()
        self.memo: Any
        self._plain: set[type] = set()
        self._cells: dict[int, tuple[int, types.CellType]] = {}
        self._globals: dict[str, _Globals] = {}
        markers = [_Standing(name) for name in standing]
        _dump(self, markers)
        memo: dict[int, tuple[int, object]] = self.memo.copy()
        for marker, value in zip(markers, standing.values(), strict=True):
            index, _ = memo.pop(id(marker))
            if id(value) in memo:
                raise RuntimeError("One thing stands under two names in a state.")
            memo[id(value)] = (index, value)
        self.memo = memo

    def dump(self, obj: object) -> None:
        """Write `obj`. Raises what the objects raise; call `take_back` then."""
        _dump(self, obj)

    def take_back(self, first: object) -> None:
        """After a failure: forget all that was written since `first`, the outermost object, was begun."""
        memo = self.memo.copy()
        begun = memo.get(id(first))
        if begun is not None:
            self.memo = {key: entry for key, entry in memo.items() if entry[0] < begun[0]}

    def reducer_override(self, obj: Any) -> Any:
        """How to store anything but the simplest types."""
        self.current = obj
        kind = type(obj)
        if kind in self._plain:
            return NotImplemented
        reduce = _REDUCERS.get(kind)
        if reduce is not None:
            return reduce(self, obj)
        if issubclass(kind, type):
            return self._class(obj)
        if issubclass(kind, _REFUSED):
            raise Unsaveable("object that lives outside of Python's memory")
        if issubclass(kind, _io._IOBase):
            if issubclass(kind, KINDS):
                raise Unsaveable("open file of an unusual kind")
        elif issubclass(kind, Enum) and not self._found(kind):
            return self._member(obj, kind)
        elif issubclass(kind, np.ndarray):
            check_array(obj)
            return NotImplemented
        elif issubclass(kind, BaseException):
            return reduce_error(obj)
        elif issubclass(kind, (dict, list)) and filled_by_the_guest(kind):
            return reduce_container(obj, kind)
        self._plain.add(kind)
        return NotImplemented

    def _found(self, obj: Any) -> bool:
        """Whether a fresh process finds `obj` by its names, in a module that it can import."""
        name = getattr(obj, "__qualname__", None) or getattr(obj, "__name__", None)
        where = getattr(obj, "__module__", None)
        if not isinstance(where, str) or not isinstance(name, str) or where == "__main__":
            return False
        at: Any = _modules.get(where)
        for part in name.split("."):
            try:
                at = getattr(at, part)
            except AttributeError:
                return False
        if at is not obj:
            return False
        self.packages.add(where.partition(".")[0])
        return True

    # Functions

    def _code(self, code: types.CodeType) -> Any:
        """As cloudpickle does, but with the name of its file: without the cell's, no traceback finds its lines.

        cloudpickle writes a placeholder since 3.1.3, so that equal code makes equal bytes.
        """
        make, parts = _take_apart(code)
        return make, tuple(code.co_filename if part == _NO_FILE else part for part in parts)

    def _function(self, function: types.FunctionType) -> Any:
        if self._found(function):
            return NotImplemented
        if (dispatcher := reduce_dispatcher(function)) is not None:
            return dispatcher
        closure = function.__closure__
        cells = None if closure is None else tuple(map(self._number, closure))
        attributes = {
            "__qualname__": function.__qualname__,
            "__module__": function.__module__,
            "__doc__": function.__doc__,
            "__defaults__": function.__defaults__,
            "__kwdefaults__": function.__kwdefaults__,
            "__annotations__": function.__annotations__,
        }
        if parameters := getattr(function, "__type_params__", ()):
            attributes["__type_params__"] = parameters
        state = (dict(function.__dict__), attributes, closure)
        made = (function.__code__, self._names(function), function.__name__, cells)
        return rebuilding.make_function, made, state, None, None, rebuilding.fill_function

    def _names(self, function: types.FunctionType) -> object:
        """The function's globals: a module's live ones, or the dict itself, which may be the session's namespace."""
        names = function.__globals__
        where = names.get("__name__")
        if isinstance(where, str) and where != "__main__":
            home = _modules.get(where)
            if type(home) is types.ModuleType and vars(home) is names:
                return self._globals.setdefault(where, _Globals(where))
        return names

    def _number(self, variable: types.CellType) -> int:
        return self._cells.setdefault(id(variable), (len(self._cells), variable))[0]

    def _cell(self, variable: types.CellType) -> Any:
        made = (rebuilding.cell, (self._number(variable),))
        try:
            contents = variable.cell_contents
        except ValueError:
            return made
        return *made, (contents,), None, None, rebuilding.fill_cell

    def _cached(self, function: Any) -> Any:
        if self._found(function):
            return NotImplemented
        options = function.cache_parameters()
        made = (function.__wrapped__, options["maxsize"], options["typed"])
        return rebuilding.make_cached, made, dict(vars(function))

    def _cached_property(self, prop: Any) -> Any:
        state = {name: value for name, value in vars(prop).items() if name != "lock"}
        return rebuilding.make_cached_property, (prop.func,), state

    # Classes

    def _class(self, kind: Any) -> Any:
        if kind in _UNNAMED:
            return rebuilding.builtin_type, (_UNNAMED[kind],)
        if kind in (type(None), type(Ellipsis), type(NotImplemented)):
            return type, ({type(None): None, type(Ellipsis): ...}.get(kind, NotImplemented),)
        if self._found(kind):
            return NotImplemented
        if not kind.__flags__ & _HEAP_TYPE:
            raise Unsaveable("type of a C library")
        names = {name: value for name, value in _dict_of(kind).items() if name not in _OURS_BY_NATURE}
        slots = [name for name, value in names.items() if type(value) is _SLOT and value.__objclass__ is kind]
        for name in slots:
            del names[name]
        own = {key: _dict_of(kind)[key] for key in ("__module__", "__slots__") if key in _dict_of(kind)}
        registered: list[type] = []
        is_abstract = issubclass(type(kind), abc.ABCMeta)
        if is_abstract:
            dump: Any = abc._get_dump(kind)  # type: ignore[attr-defined]
            registered = [other for ref in dump[0] if (other := ref()) is not None]
        first = {name: value for name, value in names.items() if isinstance(value, _CALLABLES)}
        rest = {name: value for name, value in names.items() if name not in first}
        state = (_Attributes(kind, first, []), _Attributes(kind, rest, registered))
        made = (type(kind), kind.__name__, kind.__qualname__, kind.__bases__, own, is_abstract)
        return rebuilding.make_class, made, state, None, None, rebuilding.nothing

    def _member(self, member: Any, kind: Any) -> Any:
        fixed = [base for base in kind.__mro__ if not base.__flags__ & _HEAP_TYPE and base is not object]
        if any(base not in _PLAIN_BASES for base in fixed):
            raise Unsaveable("enum of an unusual kind")
        base: Any = fixed[0] if fixed else object
        value = base.__getnewargs__(member) if fixed else ()
        return rebuilding.make_member, (kind, base, value), dict(vars(member))

    # The rest

    def _module(self, module: types.ModuleType) -> Any:
        name = module.__name__
        if _modules.get(name) is not module:
            raise Unsaveable("module that cannot be imported by its name")
        return rebuilding.module, (name,)

    def _array(self, a: Any) -> Any:
        self.packages.add("numpy")
        return reduce_array(a)

    def _file(self, file: Any) -> Any:
        return reduce_file(file, self.folder)

    def _proxy(self, proxy: Any) -> Any:
        (mapping,) = _referents(proxy)
        if isinstance(mapping, dict) and "__module__" in mapping and "__doc__" in mapping:
            raise Unsaveable("view of a class")
        return types.MappingProxyType, (mapping,)

    def _view(self, view: Any) -> Any:
        kind = type(view).__name__.rpartition("_")[2]
        return rebuilding.view_of, (_referents(view)[0], kind)

    def _refuse(self, obj: object) -> Any:
        raise Unsaveable("object that cannot be kept")  # `reasons` knows better words for these types

    def _new_type(self, obj: Any) -> Any:
        return typing.NewType, (obj.__name__, obj.__supertype__), {"__module__": obj.__module__}

    def _standing(self, marker: _Standing) -> Any:
        return rebuilding.standing, (marker.name,)

    def _module_globals(self, marker: _Globals) -> Any:
        return rebuilding.module_globals, (marker.name,)

    def _attributes(self, marker: _Attributes) -> Any:
        return rebuilding.fill_class, (marker.kind, marker.names, marker.registered)


_REFUSED: tuple[type, ...] = (
    ctypes.CDLL,
    ctypes._Pointer,
    ctypes._CFuncPtr,  # type: ignore[attr-defined]
    tempfile._TemporaryFileWrapper,
    tempfile.SpooledTemporaryFile,
    tempfile.TemporaryDirectory,
    weakref.finalize,
    weakref.WeakValueDictionary,
    weakref.WeakKeyDictionary,
    _weakrefset.WeakSet,
)
"""What pickles and does not come back as it was: addresses of memory, files and folders that end with their process."""

_dict: dict[Any, Any] = {}
_odict: OrderedDict[Any, Any] = OrderedDict()
_REDUCERS: dict[type, Callable[[StatePickler, Any], Any]] = {
    types.FunctionType: StatePickler._function,
    types.CodeType: StatePickler._code,
    types.CellType: StatePickler._cell,
    types.ModuleType: StatePickler._module,
    types.MappingProxyType: StatePickler._proxy,
    _CachedFunction: StatePickler._cached,
    functools.cached_property: StatePickler._cached_property,
    typing.NewType: StatePickler._new_type,
    np.ndarray: StatePickler._array,
    memoryview: StatePickler._refuse,
    _Standing: StatePickler._standing,
    _Globals: StatePickler._module_globals,
    _Attributes: StatePickler._attributes,
    **dict.fromkeys(KINDS, StatePickler._file),
    **{
        type(view): StatePickler._view
        for view in (_dict.keys(), _dict.values(), _dict.items(), _odict.keys(), _odict.values(), _odict.items())
    },
}
