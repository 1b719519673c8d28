"""Loads what a state holds although some of it does not load: finds the variables that this concerns, keeps the rest.

Slow, for it is pickle's own Python version with a net under every call of foreign code; used after the fast one failed.
"""

from __future__ import annotations

import gc
import io
import pickle
import types
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import numpy as np

from executor.languages.reasons import bounded, type_name

_referents = gc.get_referents


class Unloadable(Exception):
    """Something that must not be loaded here; the message says why, in a few words."""


class Broken:
    """In the place of what did not load."""

    def __init__(self, reason: str) -> None:
        self.reason = reason


class Mender(pickle._Unpickler):
    """An unpickler that puts `Broken` where loading fails and goes on; `broken` are objects that are not whole."""

    stack: list[Any]
    append: Callable[[Any], None]
    pop_mark: Callable[[], list[Any]]
    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: io.BufferedReader) -> None:
        super().__init__(file)
        self.broken: dict[int, tuple[object, str]] = {}

    def reason_within(self, value: object, clean: set[int], stop: set[int]) -> str | None:
        """Why `value` is not whole, None where it is. `clean` collects what needs no second look, `stop` ends ways."""
        seen = {id(value)}
        waiting: list[object] = [value]
        while waiting:
            at = waiting.pop()
            if type(at) is Broken:
                return at.reason
            if (found := self.broken.get(id(at))) is not None and found[0] is at:
                return found[1]
            for other in _parts(at):
                if id(other) not in seen and id(other) not in clean and id(other) not in stop:
                    seen.add(id(other))
                    waiting.append(other)
        clean |= seen
        return None

    def _break(self, value: object, error: BaseException) -> None:
        self.broken.setdefault(id(value), (value, reason_of_load(error)))

    def _load_reduce(self) -> None:
        stack: list[Any] = self.stack
        args = stack.pop()
        function = stack[-1]
        try:
            stack[-1] = function(*_whole(function, args))
        except BaseException as error:
            if isinstance(args, tuple) and len(args) == 2:
                self._break(args[0], error)  # it may have been about to get its state
            stack[-1] = Broken(reason_of_load(error))

    def _load_new(self) -> None:
        stack: list[Any] = self.stack
        args = stack.pop()
        kind = stack.pop()
        try:
            _whole(kind, ())
            stack.append(kind.__new__(kind, *args))
        except BaseException as error:
            stack.append(Broken(reason_of_load(error)))

    def _load_new_with_names(self) -> None:
        stack: list[Any] = self.stack
        options = stack.pop()
        args = stack.pop()
        kind = stack.pop()
        try:
            _whole(kind, ())
            stack.append(kind.__new__(kind, *args, **options))
        except BaseException as error:
            stack.append(Broken(reason_of_load(error)))

    def _load_global(self) -> None:
        name = self.stack.pop()
        module = self.stack.pop()
        try:
            self.append(self.find_class(module, name))
        except BaseException as error:
            self.append(Broken(reason_of_load(error)))

    def _load_frozenset(self) -> None:
        items = self.pop_mark()
        try:
            self.append(frozenset(items))
        except BaseException as error:
            self.append(Broken(reason_of_load(error)))


def _netted(opcode: int) -> Any:
    """A step that changes the object on top of the stack, which is not whole where it fails."""
    original: Callable[[Any], None] = pickle._Unpickler.dispatch[opcode]

    def step(self: Mender) -> None:
        try:
            original(self)
        except BaseException as error:
            self._break(self.stack[-1], error)

    return step


for _opcode in (pickle.BUILD, pickle.SETITEM, pickle.SETITEMS, pickle.APPEND, pickle.APPENDS, pickle.ADDITEMS):
    Mender.dispatch[_opcode[0]] = _netted(_opcode[0])
Mender.dispatch[pickle.REDUCE[0]] = Mender._load_reduce
Mender.dispatch[pickle.NEWOBJ[0]] = Mender._load_new
Mender.dispatch[pickle.NEWOBJ_EX[0]] = Mender._load_new_with_names
Mender.dispatch[pickle.STACK_GLOBAL[0]] = Mender._load_global
Mender.dispatch[pickle.FROZENSET[0]] = Mender._load_frozenset


def reason_of_load(error: BaseException) -> str:
    """Why something did not load, in a few words."""
    if isinstance(error, Unloadable):
        return bounded(str(error), 160)
    if isinstance(error, ModuleNotFoundError) and isinstance(error.name, str):
        return bounded(f"module {error.name} cannot be imported", 160)
    try:
        said = str(error)
    except BaseException:
        said = ""
    return bounded(f"loading it raised {type_name(type(error))}" + (f": {said}" if said else ""), 160)


def _whole(callee: object, args: Any) -> Any:
    for part in (callee, *args):
        if type(part) is Broken:
            raise Unloadable(part.reason)
    return args


def _parts(value: object) -> Iterable[object]:
    kind = type(value)
    if kind is types.ModuleType:
        return ()
    if isinstance(value, type) and value.__module__ != "__main__":
        return ()
    if isinstance(value, np.ndarray):
        items = value.ravel().tolist() if value.dtype == object else []
        return [*items, value.base] if value.base is not None else items
    return _referents(value)
