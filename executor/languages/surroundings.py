"""What belongs to a Python session beside its variables: folder, environment, import path, options, random numbers."""

from __future__ import annotations

import decimal
import logging
import os
import pickle
import random
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import matplotlib as mpl
import numpy as np
import pandas as pd

from executor.languages.channel import LostName
from executor.languages.reasons import bounded
from executor.languages.shell import NotebookShell

MAX_SOURCES = 300_000
"""Characters of the latest cells' code that are kept for tracebacks and `In`."""

_CELL = re.compile(r"<cell ([0-9]{1,7})>")
_DECIMAL = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")
_environ, _filters, _path = os.environ, warnings.filters, sys.path
_chdir, _getcwd = os.chdir, os.getcwd
_getstate, _getrecursionlimit = random.getstate, sys.getrecursionlimit


class Surroundings:
    """Remembers what a fresh worker has, to tell what the guest has changed. Cheap: every worker makes one."""

    def __init__(self, shell: NotebookShell, folder: Path) -> None:
        self._shell = shell
        self._folder = str(folder)
        self._environment = dict(_environ)
        self._paths = list(_path)
        self._warnings = list(warnings.filters)
        self._random: Any = None
        self._limit = 0

    def before_fork(self) -> None:
        """Note what the copy changes for itself: random numbers, and how deep it may go."""
        self._random, self._limit = _getstate(), _getrecursionlimit()

    def collect(self) -> dict[str, bytes]:
        """What to save, by part; a part that cannot be told is left out."""
        found: dict[str, bytes] = {}
        for name, (tell, _) in _PARTS.items():
            try:
                value = tell(self)
                if value is not None:
                    found[name] = cloudpickle.dumps(value, 5)
            except Exception:  # noqa: S112  the guest may have broken any library
                continue
        return found

    def lost(self) -> list[LostName]:
        """What the guest has set up and a fresh worker lacks: what takes the messages of loggers, as it is not kept."""
        known = _DEFAULTS["handlers"]
        added = [
            name
            for name, handlers in _handlers()
            if any(handler not in known for handler in handlers) and not self._is_of_a_library(name)
        ]
        if not added:
            return []
        which = " and ".join(f"of {name!r}" if name else "of the root logger" for name in added[:3])
        more = f" and of {len(added) - 3} more" if len(added) > 3 else ""
        reason = f"handlers {which}{more}; call logging.basicConfig(...) or run the cell that added them again"
        return [{"name": "(logging)", "type": "Handler", "reason": bounded(reason), "cell": None}]

    def _is_of_a_library(self, logger: str) -> bool:
        """Whether a logger is one of an installed package, which adds its handlers whenever it is imported."""
        name = logger.partition(".")[0]
        path = getattr(sys.modules.get(name), "__file__", None)
        if name == "__main__" or not isinstance(path, str):
            return False
        return not path.startswith(f"{self._folder}/") or path.startswith(f"{self._folder}/.packages/")

    def apply(self, saved: Mapping[str, bytes], *, early: bool) -> None:
        """Take over parts: those that imports and files depend on are `early`, the others come after the variables."""
        for name, (_, take) in _PARTS.items():
            if name in saved and (name in _EARLY) is early:
                try:
                    take(self, pickle.loads(saved[name]))  # noqa: S301  inside the sandbox
                except Exception:  # noqa: S112  as above, or another version of a library
                    continue

    def undo(self) -> None:
        """Go back to what a fresh worker has, as far as `early` parts changed it."""
        _chdir(self._folder)
        _path[:] = self._paths
        for key in set(_environ) - set(self._environment):
            del _environ[key]
        _environ.update(self._environment)

    # One pair of methods a part: what there is to tell, or None, and how to take it over

    def _tell_folder(self) -> Any:
        here = _getcwd()
        if here.startswith(self._folder + "/"):
            return True, here[len(self._folder) + 1 :]
        return None if here == self._folder else (False, here)

    def _take_folder(self, value: tuple[bool, str]) -> None:
        below, path = value
        _chdir(Path(self._folder) / path if below else path)

    def _tell_environment(self) -> Any:
        now, before = dict(os.environ), self._environment
        changed = {key: value for key, value in now.items() if before.get(key) != value}
        gone = [key for key in before if key not in now]
        return (changed, gone) if changed or gone else None

    def _take_environment(self, value: tuple[dict[str, str], list[str]]) -> None:
        changed, gone = value
        _environ.update(changed)
        for key in gone:
            _environ.pop(key, None)

    def _tell_paths(self) -> Any:
        own = [p for p in sys.path if isinstance(p, str)]
        added = [(at, p) for at, p in enumerate(own) if p not in self._paths]
        return added or None

    def _take_paths(self, value: list[tuple[int, str]]) -> None:
        for at, path in value:
            if path not in _path:
                _path.insert(at, path)

    def _tell_rc(self) -> Any:
        changed = {key: value for key, value in _rc().items() if _differs(value, _DEFAULTS["rc"].get(key))}
        return changed or None

    def _take_rc(self, value: Any) -> None:
        mpl.rcParams.update(value)

    def _tell_pandas(self) -> Any:
        changed = {key: value for key, value in _pandas().items() if _differs(value, _DEFAULTS["pandas"].get(key))}
        return changed or None

    def _take_pandas(self, value: dict[str, Any]) -> None:
        for key, option in value.items():
            pd.set_option(key, option)

    def _tell_numpy(self) -> Any:
        options, errors = np.get_printoptions(), np.geterr()
        same = options == _DEFAULTS["print"] and errors == _DEFAULTS["errors"]
        return None if same else (options, errors)

    def _take_numpy(self, value: tuple[dict[str, Any], Any]) -> None:
        options, errors = value
        known = np.get_printoptions()
        np.set_printoptions(**{key: option for key, option in options.items() if key in known})
        np.seterr(**errors)

    def _tell_random(self) -> Any:
        return self._random, np.random.get_state(legacy=False)

    def _take_random(self, value: tuple[Any, Any]) -> None:
        random.setstate(value[0])
        np.random.set_state(value[1])

    def _tell_warnings(self) -> Any:
        return None if warnings.filters == self._warnings else list(warnings.filters)

    def _take_warnings(self, value: list[Any]) -> None:
        warnings.filters[:] = value  # type: ignore[index]
        warnings._filters_mutated()  # type: ignore[attr-defined]

    def _tell_decimal(self) -> Any:
        context = decimal.getcontext()
        now = {name: getattr(context, name) for name in _DECIMAL}
        return None if now == _DEFAULTS["decimal"] else now

    def _take_decimal(self, value: dict[str, Any]) -> None:
        for name, option in value.items():
            setattr(decimal.getcontext(), name, option)

    def _tell_limit(self) -> Any:
        return None if self._limit == _DEFAULTS["limit"] else self._limit

    def _take_limit(self, value: int) -> None:
        sys.setrecursionlimit(value)

    def _tell_levels(self) -> Any:
        known = _DEFAULTS["levels"]
        return {name: level for name, level in _levels().items() if known.get(name, 0) != level} or None

    def _take_levels(self, value: dict[str, int]) -> None:
        for name, level in value.items():
            logging.getLogger(name).setLevel(level)

    def _tell_sources(self) -> Any:
        kept: dict[str, list[str]] = {}
        room = MAX_SOURCES
        for name, lines in reversed(self._shell.tracebacks.sources.items()):
            room -= sum(map(len, lines))
            if room < 0:
                break
            kept[name] = lines
        return dict(reversed(kept.items()))

    def _take_sources(self, value: dict[str, list[str]]) -> None:
        for name, lines in value.items():
            self._shell.remember_source(name, lines)
            if (match := _CELL.fullmatch(name)) is not None:
                self._shell.remember_input(int(match[1]), "".join(lines))

    def _tell_removed(self) -> Any:
        return [name for name in self._shell.ready_names if name not in self._shell.user_ns] or None

    def _take_removed(self, value: list[str]) -> None:
        for name in value:
            self._shell.user_ns.pop(name, None)


_Part = tuple[Callable[[Surroundings], Any], Callable[[Surroundings, Any], None]]
_PARTS: dict[str, _Part] = {
    "environment": (Surroundings._tell_environment, Surroundings._take_environment),
    "folder": (Surroundings._tell_folder, Surroundings._take_folder),
    "paths": (Surroundings._tell_paths, Surroundings._take_paths),
    "sources": (Surroundings._tell_sources, Surroundings._take_sources),
    "removed": (Surroundings._tell_removed, Surroundings._take_removed),
    "rc": (Surroundings._tell_rc, Surroundings._take_rc),
    "pandas": (Surroundings._tell_pandas, Surroundings._take_pandas),
    "numpy": (Surroundings._tell_numpy, Surroundings._take_numpy),
    "decimal": (Surroundings._tell_decimal, Surroundings._take_decimal),
    "warnings": (Surroundings._tell_warnings, Surroundings._take_warnings),
    "limit": (Surroundings._tell_limit, Surroundings._take_limit),
    "levels": (Surroundings._tell_levels, Surroundings._take_levels),
    "random": (Surroundings._tell_random, Surroundings._take_random),
}
_EARLY = frozenset({"environment", "folder", "paths", "sources"})


def _differs(value: object, default: object) -> bool:
    return type(value) is not type(default) or bool(value != default)


def _rc() -> dict[str, Any]:
    """matplotlib's settings, but for the backend: looking at that one may choose it."""
    settings: Any = mpl.rcParams
    return {key: dict.__getitem__(settings, key) for key in settings if key != "backend"}


def _pandas() -> dict[str, Any]:
    found: dict[str, Any] = {}

    def walk(prefix: str, options: Mapping[str, Any]) -> None:
        for key, value in options.items():
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            else:
                found[prefix + key] = value

    walk("", pd._config.config._global_config)
    return found


def _levels() -> dict[str, int]:
    loggers = logging.root.manager.loggerDict.items()
    levels = {name: logger.level for name, logger in loggers if isinstance(logger, logging.Logger)}
    return levels | {"": logging.root.level}


def _handlers() -> Iterator[tuple[str, list[logging.Handler]]]:
    """The handlers that say or write something, by the name of their logger, which is empty for the root's."""
    yield "", logging.root.handlers
    for name, logger in sorted(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            yield name, [handler for handler in logger.handlers if type(handler) is not logging.NullHandler]


_DEFAULTS: dict[str, Any] = {}


def note_defaults() -> None:
    """Remember what the libraries' options are before any guest has changed one. Once, in the zygote."""
    context = decimal.getcontext()
    _DEFAULTS.update(
        rc=_rc(),
        pandas=_pandas(),
        print=np.get_printoptions(),
        errors=np.geterr(),
        decimal={name: getattr(context, name) for name in _DECIMAL},
        limit=sys.getrecursionlimit(),
        levels=_levels(),
        handlers=[handler for _, handlers in _handlers() for handler in handlers],
    )
