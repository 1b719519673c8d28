"""Which versions a state was made with, and what of it must not be loaded under others."""

from __future__ import annotations

import platform
import sys
from importlib import metadata

from executor.languages.channel import StateHead
from executor.languages.mending import Unloadable
from executor.languages.reasons import bounded

_CODE = frozenset({"make_function", "CodeType"})
"""What makes functions of bytecode, which is another one's with each minor version of Python."""


class Checks:
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
