"""How single kinds of objects are stored in a saved state where pickle's own way would alter them."""

from __future__ import annotations

import functools
import types
from collections.abc import Mapping
from typing import Any, cast

from executor.languages import rebuilding

_DISPATCH_CODE = cast(types.FunctionType, functools.singledispatch(lambda value: value)).__code__


def reduce_error(error: BaseException) -> Any:
    """An exception, with those that it came from; its traceback ends with the process."""
    reduced = error.__reduce_ex__(5)
    if not isinstance(reduced, tuple) or len(reduced) > 3 or (error.__cause__ is None and error.__context__ is None):
        return reduced
    own = reduced[2] if len(reduced) == 3 else None
    state = (own, error.__cause__, error.__context__, error.__suppress_context__)
    return reduced[0], reduced[1], state, None, None, rebuilding.fill_error


def filled_by_the_guest(kind: Any) -> bool:
    """Whether pickle would fill a container by methods of the guest's, which may do anything with what they are given.

    That is so where it is pickled in the usual way, and the methods are not the built-in ones.
    """
    if kind.__reduce_ex__ is not object.__reduce_ex__ or kind.__reduce__ is not object.__reduce__:
        return False
    if issubclass(kind, dict):
        return kind.__setitem__ is not dict.__setitem__ or kind.items is not dict.items
    return any(getattr(kind, name) is not getattr(list, name) for name in ("append", "extend", "__iter__"))


def reduce_container(obj: Any, kind: type) -> Any:
    """A dict or list that is to be filled past its own methods."""
    make, args, state = cast(tuple[Any, ...], object.__reduce_ex__(obj, 5))[:3]
    items = list(dict.items(obj)) if issubclass(kind, dict) else list.copy(obj)
    return make, args, (state, items), None, None, rebuilding.fill_container


def reduce_dispatcher(function: types.FunctionType) -> Any:
    """A `singledispatch` function, whose cache is made of weak references."""
    if function.__code__ is not _DISPATCH_CODE:
        return None
    registry: Mapping[type, Any] = function.registry  # type: ignore[attr-defined]
    return rebuilding.make_dispatcher, (registry[object], [(k, f) for k, f in registry.items() if k is not object])
