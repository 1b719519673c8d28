"""Scan: among what lies under a session's key, the newest snapshot that proves itself, and leftovers. Blocks."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from executor.store.manifest import Head, Manifest, decode, read_head, whose
from executor.store.medium import Medium
from executor.store.names import Name
from executor.store.packs import Damaged

LEFTOVER = 3600.0
"""Seconds after which what no snapshot refers to was left by a save that will never end."""


@dataclass(frozen=True, slots=True)
class Found:
    """`newest` is the newest snapshot whose manifest proves itself and whose packs have their sizes; else the newest
    whose manifest does: some of its files can be had, or its packs are only late. Without one it is None, and `ruin`
    what the newest damaged one still says. `sizes` are the bytes of the names that are known, `faults` is what is wrong
    with the others, `leftovers` are names that can go."""

    newest: Head | None
    sizes: dict[Name, int]
    faults: list[str] = field(default_factory=list)
    leftovers: list[Name] = field(default_factory=list)
    ruin: Head | None = None


def newest_first(names: Iterable[Name]) -> list[Name]:
    """The manifests among `names`."""
    return sorted((name for name in names if name.suffix == "snap"), key=lambda name: name.order, reverse=True)


def scan(medium: Medium, names: Sequence[Name]) -> Found:
    """What the names of one session hold. Raises OSError only where nothing at all could be read."""
    heads: list[Head] = []
    ruin: Head | None = None
    bad: list[Name] = []
    faults: list[str] = []
    sizes: dict[Name, int] = {}
    errors: list[OSError] = []
    for name in newest_first(names):
        try:
            data = read_all(medium, name)
            sizes[name] = len(data)
            head = read_head(name, data)
            heads.append(head)
        except Damaged as error:
            bad.append(name)
            faults.append(f"{error}")
            ruin = ruin or whose(name, data)
        except OSError as error:
            faults.append(f"{name}: {error.strerror}")
            errors.append(error)
    newest = None
    for head in heads:
        missing = _missing(medium, head, sizes)
        if missing is None:
            newest = head
            break
        faults.append(missing)
    if newest is None and heads:
        newest = heads[0]
    if newest is None and errors:
        raise errors[0]
    leftovers = []
    if newest is not None and not errors:
        referred = {pack for head in heads for pack, _ in head.packs}
        packs = (name for name in names if name.suffix == "pack" and name not in referred)
        leftovers = [name for name in (*packs, *bad) if _old(medium, name)]
    for name in names:
        if name not in sizes:
            with suppress(OSError):
                sizes[name] = size_of(medium, name)
    return Found(newest, sizes, faults, leftovers, None if newest else ruin)


def read_all(medium: Medium, name: Name) -> bytes:
    """The whole of a small name. Raises OSError."""
    reader = medium.open(name.path)
    try:
        return reader.read(0, reader.size)
    finally:
        reader.close()


def read_manifest(medium: Medium, name: Name) -> tuple[Manifest, int]:
    """A manifest, and its bytes. Raises OSError and Damaged."""
    data = read_all(medium, name)
    return decode(name, data), len(data)


def size_of(medium: Medium, name: Name) -> int:
    """Bytes of a name. Raises OSError."""
    reader = medium.open(name.path)
    try:
        return reader.size
    finally:
        reader.close()


def _missing(medium: Medium, head: Head, sizes: dict[Name, int]) -> str | None:
    """What is wrong with the packs of a snapshot."""
    for pack, size in head.packs:
        try:
            sizes[pack] = size_of(medium, pack)
        except OSError as error:
            return f"{pack}: {error.strerror}"
        if sizes[pack] != size:
            return f"{pack} has {sizes[pack]} bytes instead of {size}"
    return None


def _old(medium: Medium, name: Name) -> bool:
    with suppress(OSError):
        return time.time() - medium.modified(name.path) > LEFTOVER
    return False
