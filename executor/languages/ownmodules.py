"""Modules of the session's own files: a fresh worker loads them anew, so what they hold beyond their source is lost.

Nothing remembers what a module was when it was imported. So its source is read, which is what a fresh worker will do,
and what plain values, functions and classes it leads to is compared with what is there. Whatever cannot be told that
way counts as changed; a plain helper module does not.
"""

from __future__ import annotations

import ast
import functools
import logging
import os
import re
import stat
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from importlib.util import resolve_name
from typing import Any

from executor.languages.channel import LostName
from executor.languages.reasons import bounded

MAX_SOURCE = 300_000
"""Bytes of a module's source that are read; of a longer one nothing can be told."""
MAX_TOLD = 30
"""Modules that are named."""
REASON = "loaded anew: what it had changed within itself"
"""As JavaScript says it."""

_ELSEWHERE = frozenset({".packages", "site-packages", "node_modules"})
"""Folders of what was installed."""
_CONSTANT = (
    *(ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Set, ast.Load),
    *(ast.UnaryOp, ast.unaryop),
    *(ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.BitOr),
)
"""What an expression that is always the same consists of, without what may take long to work out."""
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_LASTING = (types.ModuleType, types.BuiltinFunctionType, functools._lru_cache_wrapper, logging.Logger, re.Pattern)
"""What has nothing within itself that a fresh worker lacks, or that is told elsewhere."""
_names_of: Callable[[object], dict[str, Any]] = vars(types.ModuleType)["__dict__"].__get__
_dict_of: Callable[[type], Mapping[str, Any]] = type.__dict__["__dict__"].__get__
_modules = sys.modules


def changed(folder: str) -> Iterator[LostName]:
    """The modules from files in `folder`, the session's, that differ from what their source says or may do so."""
    seen: set[str] = set()
    for module in list(_modules.values()):
        if not issubclass(type(module), types.ModuleType):
            continue
        names = _names_of(module)
        path = names.get("__file__")
        if type(path) is not str or names.get("__name__") == "__main__" or path in seen:
            continue
        inside = path.removeprefix(folder + "/")
        if inside == path or not _ELSEWHERE.isdisjoint(inside.split("/")):
            continue
        seen.add(path)
        if len(seen) > MAX_TOLD:
            return
        if not _is_as_written(names, path):
            yield {"name": bounded(f"./{inside}"), "type": "module", "reason": REASON, "cell": None}


def _is_as_written(names: dict[str, Any], path: str) -> bool:
    # whatever the guest has put there: what cannot be looked at is not known to be the same
    with suppress(Exception):
        tree = ast.parse(_read(path))
        return _Source(names, tree).leads_to(names, tree.body)
    return False


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_SOURCE:
            raise ValueError("no source to read")
        return os.read(fd, MAX_SOURCE)
    finally:
        os.close(fd)


class _Source:
    """What the source of one module says of the values in it."""

    def __init__(self, names: dict[str, Any], tree: ast.Module) -> None:
        self._names = names
        self._home = names.get("__name__")
        self._imported = dict(_imported(tree, str(names.get("__package__") or "")))

    def leads_to(self, names: Mapping[str, Any], body: list[ast.stmt], *, of_class: bool = False) -> bool:
        """Whether running `body` gives `names`, those of the module or of a class in it."""
        said = _constants(body)
        classes = {statement.name: statement for statement in body if isinstance(statement, ast.ClassDef)}
        if not said.keys() <= names.keys():
            return False
        for name, value in names.items():
            kind = type(value)
            if (name.startswith("__") and name.endswith("__")) or (of_class and name == "_abc_impl"):
                continue
            if name in said and _same(said[name], value):
                continue
            if name in self._imported and value is self._imported[name]:
                continue
            if issubclass(kind, type):
                if not self._class(value, classes.get(value.__name__)):
                    return False
            elif issubclass(kind, types.FunctionType):
                if not self._function(value):
                    return False
            elif of_class and issubclass(kind, (classmethod, staticmethod, property, functools.cached_property)):
                inner = (value.fget, value.fset) if kind is property else (getattr(value, "__func__", value),)
                if not all(self._function(part) for part in inner if type(part) is types.FunctionType):
                    return False
            elif of_class and hasattr(kind, "__get__") and kind.__module__ != "__main__":
                continue  # a slot, or what a library has made of a field
            elif name in said or not (issubclass(kind, _LASTING) or kind.__module__ == "typing"):
                return False
        return True

    def _class(self, kind: Any, statement: ast.ClassDef | None) -> bool:
        if kind.__module__ != self._home:
            return bool(kind.__module__ != "__main__")
        if issubclass(kind, Enum) or (issubclass(kind, tuple) and "_fields" in _dict_of(kind)):
            return True
        return statement is not None and self.leads_to(_dict_of(kind), statement.body, of_class=True)

    def _function(self, function: types.FunctionType) -> bool:
        if function.__globals__ is not self._names and function.__module__ != self._home:
            return function.__globals__.get("__name__") != "__main__"
        if function.__dict__.keys() - {"__wrapped__"}:
            return False
        kept = [cell.cell_contents for cell in function.__closure__ or ()]
        steady = (*_PLAIN, type, types.FunctionType, types.MethodType, *_LASTING)
        return all(issubclass(type(value), steady) for value in kept)


def _constants(body: list[ast.stmt]) -> dict[str, Any]:
    """The values of names that are simply set to a constant."""
    found: dict[str, Any] = {}
    for statement in body:
        if not isinstance(statement, (ast.Assign, ast.AnnAssign)) or statement.value is None:
            continue
        targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        if all(map(_is_steady, ast.walk(statement.value))):
            value = eval(compile(ast.Expression(statement.value), "<constant>", "eval"), {})  # noqa: S307  constants only
            found.update(dict.fromkeys(names, value))
        else:
            for name in names:
                found.pop(name, None)
    return found


def _is_steady(node: ast.AST) -> bool:
    """Whether a part of an expression is always the same, and quickly worked out: a text times a number may be huge."""
    if isinstance(node, ast.BinOp):
        return not any(
            isinstance(part, (ast.Tuple, ast.List, ast.Dict, ast.Set))
            or (isinstance(part, ast.Constant) and isinstance(part.value, (str, bytes)))
            for part in ast.walk(node)
        )
    return isinstance(node, _CONSTANT)


def _imported(tree: ast.Module, package: str) -> Iterator[tuple[str, Any]]:
    """What the module has from others, by the name that it has here, as far as these still have it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            where = _modules.get(resolve_name("." * node.level + (node.module or ""), package))
            for alias in node.names if where is not None else ():
                names = _names_of(where)
                if alias.name in names:
                    yield alias.asname or alias.name, names[alias.name]


def _same(said: Any, value: Any) -> bool:
    """Whether `value` equals a constant, in its types, too."""
    if type(said) is not type(value):
        return False
    if isinstance(said, (list, tuple)):
        return len(said) == len(value) and all(map(_same, said, value))
    if isinstance(said, dict):
        return len(said) == len(value) and all(key in value and _same(said[key], value[key]) for key in said)
    return bool(said == value)
