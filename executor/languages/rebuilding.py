"""Builds what a saved state holds: the functions that its pickles call, by name, while it is loaded.

Everything here runs inside the sandbox. A state names these functions: renaming one makes older states unreadable.
"""

from __future__ import annotations

import abc
import functools
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

_set_on_class = type.__setattr__
_CHECKING = (typing.Generic, typing.Protocol)
"""Bases that look at a class before its attributes are there, and set what is restored with these."""
_new_class = type.__new__


class Loading:
    """One loading of a state: what stands in this process already, and what was made so far."""

    def __init__(self, standing: Mapping[str, Any], folder: str) -> None:
        self.standing = standing
        self.folder = folder
        self.cells: dict[int, types.CellType] = {}
        self.classes: set[type] = set()


class _Now:
    """The loading that is under way; pickles can call functions only, so it cannot be handed to them."""

    loading: Loading | None = None


@contextmanager
def under_way(loading: Loading) -> Iterator[None]:
    """Let what a pickle calls find `loading`."""
    before, _Now.loading = _Now.loading, loading
    try:
        yield
    finally:
        _Now.loading = before


def now() -> Loading:
    """The loading that is under way. Raises RuntimeError outside of one."""
    if _Now.loading is None:
        raise RuntimeError("No state is being loaded.")
    return _Now.loading


def standing(name: str) -> Any:
    """What every worker has, such as the namespace itself."""
    return now().standing[name]


def module_globals(name: str) -> dict[str, Any]:
    """The live globals of an importable module."""
    return vars(module(name))


def module(name: str) -> types.ModuleType:
    """A module by its full name."""
    __import__(name)
    return sys.modules[name]


def builtin_type(name: str) -> type:
    """A type that only `types` gives a name."""
    kind: type = getattr(types, name)
    return kind


def view_of(mapping: Any, kind: str) -> Any:
    """`mapping.keys()`, `.values()` or `.items()`."""
    return getattr(mapping, kind)()


def cell(number: int) -> types.CellType:
    """The variable `number` that closures share; one and the same for all of them."""
    return now().cells.setdefault(number, types.CellType())


def fill_cell(variable: types.CellType, state: tuple[Any]) -> None:
    """Set what a closure's variable holds."""
    variable.cell_contents = state[0]


def make_function(
    code: types.CodeType, names: dict[str, Any], name: str, cells: tuple[int, ...] | None
) -> types.FunctionType:
    """A function without its attributes, on its live globals."""
    return types.FunctionType(code, names, name, None, None if cells is None else tuple(map(cell, cells)))


def fill_function(function: types.FunctionType, state: tuple[dict[str, Any], dict[str, Any], Any]) -> None:
    """Set a function's attributes; its closure has been filled by being loaded."""
    own, attributes, _ = state
    function.__dict__.update(own)
    for name, value in attributes.items():
        setattr(function, name, value)


def make_cached(function: Callable[..., Any], maxsize: int | None, typed: bool) -> Any:
    """A function with an `lru_cache`, which starts empty."""
    return functools.lru_cache(maxsize, typed)(function)


def make_cached_property(function: Callable[..., Any]) -> Any:
    """A `cached_property`, whose lock is its own."""
    return functools.cached_property(function)


def make_dispatcher(function: Callable[..., Any], implementations: list[tuple[type, Callable[..., Any]]]) -> Any:
    """A `singledispatch` function with its implementations."""
    made = functools.singledispatch(function)
    for kind, implementation in implementations:
        made.register(kind, implementation)
    return made


def make_class(
    meta: type, name: str, qualname: str, bases: tuple[type, ...], names: dict[str, Any], is_abstract: bool
) -> type:
    """A class without its attributes; nobody of the guest's is told, for none is made anew."""
    made = now().classes
    told = [
        kind
        for kind in {k for base in bases for k in base.__mro__ if k in made or k in _CHECKING}
        if "__init_subclass__" in vars(kind)
    ]
    hooks = [vars(kind)["__init_subclass__"] for kind in told]
    for kind in told:
        _set_on_class(kind, "__init_subclass__", classmethod(_not_told))
    try:
        names = {**names, "__qualname__": qualname}
        if is_abstract:
            made_class: type = abc.ABCMeta.__new__(meta, name, bases, names)
        else:
            made_class = _new_class(meta, name, bases, names)
    finally:
        for kind, hook in zip(told, hooks, strict=True):
            _set_on_class(kind, "__init_subclass__", hook)
    made.add(made_class)
    return made_class


def fill_class(kind: type, names: dict[str, Any], registered: list[type]) -> None:
    """Set a class's attributes."""
    for name, value in names.items():
        _set_on_class(kind, name, value)
    for other in registered:
        abc.ABCMeta.register(kind, other)  # type: ignore[arg-type]


def fill_error(error: BaseException, state: tuple[Any, Any, Any, bool]) -> None:
    """Set what an exception carries and what it came from."""
    own, error.__cause__, error.__context__, error.__suppress_context__ = state
    if own is not None:
        _fill(error, own)


def fill_container(container: Any, state: tuple[Any, list[Any]]) -> None:
    """Fill a dict or a list of the guest's kind past its own methods."""
    own, items = state
    if isinstance(container, dict):
        dict.update(container, items)
    else:
        list.extend(container, items)
    if own is not None:
        _fill(container, own)


def _fill(value: Any, state: Any) -> None:
    """What pickle does with a state."""
    if (take := getattr(value, "__setstate__", None)) is not None:
        take(state)
        return
    own, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    if own:
        value.__dict__.update(own)
    for name, content in (slots or {}).items():
        setattr(value, name, content)


def nothing(value: object, state: object) -> None:
    """Loading `state` has done its work."""


def make_member(kind: type, base: type, value: tuple[Any, ...]) -> Any:
    """A member of an Enum of the guest's, without its name."""
    return base.__new__(kind, *value)


def _not_told(kind: type, /, **options: object) -> None:
    """In the place of a guest's `__init_subclass__`."""
