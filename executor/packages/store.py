"""Store: fetched trees of packages on the server's side, shared by all sessions, out of reach of their code.

Sessions get copies. A tree is kept for the exact set of requests that it was fetched for, and asked for anew after a
while, as a request such as `polars` means the newest version.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from executor.packages.report import Ecosystem, Package
from executor.packages.requests import Wanted
from executor.parcel import measure

FRESH = 3600.0
"""Seconds for which a tree is taken again without asking the index."""

SETTLING = 60.0
"""Seconds for which a new tree is safe, until whoever had it fetched has begun to read it."""


@dataclass(slots=True, eq=False)
class Tree:
    """A fetched folder with its packages, bytes and number of files; not removed while `used` by so many readers."""

    folder: Path
    packages: tuple[Package, ...]
    size: int
    files: int
    fetched: float = field(default_factory=time.monotonic)
    used: int = 0


class Store:
    """Trees and downloads below `folder`, or without one below a temporary folder of our own.

    Everything here may block on the disk: it is called from threads, one call at a time.
    """

    def __init__(self, folder: Path | None, *, max_bytes: int) -> None:
        self._given = folder
        self._folder: Path | None = None
        self._max_bytes = max_bytes
        self._trees: dict[str, Tree] = {}

    @staticmethod
    def key(wanted: Sequence[Wanted], language: Ecosystem) -> str:
        """What a set of requests is kept under."""
        return hashlib.sha256(json.dumps([language, *sorted(want.text for want in wanted)]).encode()).hexdigest()

    @property
    def downloads(self) -> Path:
        """Where clients keep what they fetched."""
        return self._open() / "downloads"

    def stage(self) -> Path:
        """A new empty folder to fetch into."""
        return Path(tempfile.mkdtemp(prefix="stage-", dir=self._open()))

    def find(self, key: str) -> Tree | None:
        """The tree of that key, if it is fresh. Quick."""
        tree = self._trees.get(key)
        if tree is None or time.monotonic() - tree.fetched > FRESH:
            return None
        self._trees[key] = self._trees.pop(key)  # the one used longest ago goes first
        return tree

    def keep(self, key: str, tree: Path, packages: Sequence[Package]) -> Tree:
        """Take a fetched tree over from its stage."""
        size, files = measure(tree)
        home = Path(tempfile.mkdtemp(prefix="tree-", dir=self._open()))
        tree.rename(home / "tree")
        former = self._trees.pop(key, None)
        found = self._trees[key] = Tree(home / "tree", tuple(packages), size, files)
        if former is not None and not former.used:
            shutil.rmtree(former.folder.parent, ignore_errors=True)
        return found

    def release(self, tree: Tree) -> None:
        """It is no longer read; what is over the limit goes."""
        tree.used -= 1
        if not tree.used and tree not in self._trees.values():
            shutil.rmtree(tree.folder.parent, ignore_errors=True)
        total = sum(other.size for other in self._trees.values())
        for key, other in tuple(self._trees.items()):
            if total <= self._max_bytes:
                break
            if not other.used and time.monotonic() - other.fetched > SETTLING:
                total -= other.size
                del self._trees[key]
                shutil.rmtree(other.folder.parent, ignore_errors=True)

    def trim(self) -> None:
        """Forget the downloads where they are over the limit; for when no client is at work."""
        if self._folder is not None and measure(self.downloads)[0] > self._max_bytes:
            shutil.rmtree(self.downloads, ignore_errors=True)

    def close(self) -> None:
        """Leave nothing behind but the downloads of a folder that was given."""
        if self._folder is None:
            return
        if self._given is None:
            shutil.rmtree(self._folder, ignore_errors=True)
        else:
            self._clear(self._folder)
        self._trees.clear()
        self._folder = None

    def _open(self) -> Path:
        if self._folder is None:
            if self._given is None:
                self._folder = Path(tempfile.mkdtemp(prefix="code-interpreter-packages-"))
            else:
                self._given.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._given.chmod(0o700)
                # what a process that was killed has left
                self._clear(self._given)
                self._folder = self._given
        return self._folder

    @staticmethod
    def _clear(folder: Path) -> None:
        for entry in folder.iterdir():
            if entry.name.startswith(("stage-", "tree-")):
                shutil.rmtree(entry, ignore_errors=True)
