"""Held: what a running server knows of each session in the store, and whose turn it is there."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from executor.store.manifest import Head, Manifest
from executor.store.names import Name
from executor.store.snapshot import Record

INDEXED = 500_000
"""Entries of folders, over all sessions, that are kept in memory to compare the next tree with."""


@dataclass(slots=True, eq=False)
class Held:
    """A session: its newest snapshot, the bytes of every name it has, the highest sequence that was taken.

    `proven` packs were read back whole, `written` names are of this server. `index` is the newest snapshot with its
    tree, where that is kept, and `missing` what of it came back damaged.
    """

    key: str
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    record: Record | None = None
    newest: Name | None = None
    sizes: dict[Name, int] = field(default_factory=dict)
    sequence: int = 0
    index: Manifest | None = None
    index_size: int = 0
    missing: frozenset[str] = frozenset()
    proven: set[Name] = field(default_factory=set)
    written: dict[Name, float] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """What the session takes in the store."""
        return sum(self.sizes.values())

    @property
    def empty(self) -> bool:
        """Whether there is nothing worth knowing."""
        return self.record is None and not self.sizes and not self.sequence

    def found(self, head: Head, sizes: dict[Name, int]) -> Record:
        """Take note of a snapshot that was found in the store."""
        self.newest = head.name
        self.sizes |= sizes
        sequence = head.name.order[1]
        self.sequence = max(self.sequence, sequence)
        self.record = Record(head.session_id, head.meta, head.taken_at, head.bytes, sequence)
        return self.record


class Table:
    """All that is held, by key."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._indexed: OrderedDict[str, int] = OrderedDict()

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._held.values()))

    def get(self, key: str) -> Held | None:
        """What is known of a session, if anything."""
        return self._held.get(key)

    def enter(self, key: str) -> Held:
        """What is known of a session, from now on at least its name."""
        return self._held.setdefault(key, Held(key))

    @asynccontextmanager
    async def turn(self, key: str) -> AsyncIterator[Held]:
        """One at a time for each session."""
        while True:
            held = self.enter(key)
            async with held.lock:
                if self._held.get(key) is not held:
                    continue  # it was deleted meanwhile
                try:
                    yield held
                finally:
                    if held.empty:
                        self._held.pop(key, None)
                return

    def forget(self, held: Held) -> None:
        """The session is deleted."""
        self._held.pop(held.key, None)
        self._indexed.pop(held.key, None)

    def remember(self, held: Held, manifest: Manifest, size: int) -> None:
        """Keep a manifest for the next comparison, at the expense of the one that was used longest ago."""
        if self._held.get(held.key) is not held:
            return  # deleted meanwhile
        held.index, held.index_size, held.missing = manifest, size, frozenset()
        self._indexed.pop(held.key, None)
        self._indexed[held.key] = len(manifest.entries)
        while sum(self._indexed.values()) > INDEXED and len(self._indexed) > 1:
            key, _ = self._indexed.popitem(last=False)
            if other := self._held.get(key):
                other.index = None
