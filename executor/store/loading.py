"""Loading: the newest whole snapshot of a session becomes a parcel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

from executor.errors import NoSnapshot, StoreFailed
from executor.store.access import Access
from executor.store.giving import Giving
from executor.store.held import Held, Table
from executor.store.names import Name
from executor.store.packs import Damaged
from executor.store.scan import newest_first, read_manifest
from executor.store.snapshot import Snapshot

LATE = (0.1, 0.3, 0.6, 1.0)
"""Seconds between the tries to read what the medium refuses, or what this server itself wrote not long ago."""

RECENT = 600.0
"""Seconds for which a volume may be late."""


class Loading:
    """Reads snapshots; `listed` gives the names of a key."""

    def __init__(self, access: Access, table: Table, listed: Callable[[str], Awaitable[list[Name]]]) -> None:
        self._access = access
        self._table = table
        self._listed = listed
        self._giving: set[Giving] = set()

    async def load(self, held: Held, session_id: str, *, salvage: bool) -> tuple[Snapshot, AsyncIterator[bytes], bytes]:
        """See `Store.load`; called in the session's turn."""
        giving, size = await self._choose(held, salvage)
        manifest = giving.manifest
        try:
            history = await self._access.do("be read", giving.history)
        except BaseException:
            self._access.let_go(giving.close)
            raise
        head = manifest.head(size)
        record = held.found(head, dict(head.packs) | {manifest.name: size})
        self._table.remember(held, manifest, size)
        self._giving.add(giving)
        snapshot = Snapshot(
            session_id=session_id,
            meta=manifest.meta,
            tree=manifest.tree(),
            taken_at=record.taken_at,
            bytes=record.bytes,
            sequence=record.sequence,
            damaged=giving.damaged,
            history_lost=history is None,
        )
        return snapshot, self._give(giving, held), history or b""

    def close(self) -> None:
        """Let go of what is being read. Idempotent."""
        for giving in self._giving:
            self._access.let_go(giving.close)
        self._giving.clear()

    async def _choose(self, held: Held, salvage: bool) -> tuple[Giving, int]:
        """The newest snapshot whose manifest proves itself and whose packs are there in full, with its packs open.

        An older one is not taken for the newest where that may only be late, or refused for a moment.
        """
        for pause in (*LATE, None):
            names = newest_first({*await self._names(held), *held.sizes})
            if not names:
                raise NoSnapshot("The store holds nothing of that session.")
            held.sequence = max(held.sequence, names[0].order[1])
            why = ""
            for name in names:
                refused = False
                try:
                    return await self._open(held, name, salvage)
                except Damaged as error:
                    why = why or f"{error}"
                except OSError as error:
                    why = why or f"{error.strerror}"
                    refused = not isinstance(error, FileNotFoundError)
                recent = time.monotonic() - held.written.get(name, -RECENT) < RECENT
                if pause is not None and (refused or recent):
                    break
                if refused and not salvage:
                    raise StoreFailed(f"The snapshot cannot be read now: {why}. Try again later.")
            else:
                raise StoreFailed(f"No snapshot of the session is whole: {why}.")
            await asyncio.sleep(pause or 0)
        raise AssertionError("the last try ends in one way or the other")

    async def _names(self, held: Held) -> list[Name]:
        try:
            return await self._listed(held.key)
        except StoreFailed:
            if not held.sizes:
                raise
            return []

    async def _open(self, held: Held, name: Name, salvage: bool) -> tuple[Giving, int]:
        if held.index is not None and held.index.name == name:
            manifest, size = held.index, held.index_size
        else:
            manifest, size = await self._access.ask(partial(read_manifest, self._access.medium, name))
        opening = partial(Giving, self._access.medium, manifest, salvage=salvage)
        return await self._access.ask(opening, late=Giving.close), size

    async def _give(self, giving: Giving, held: Held) -> AsyncIterator[bytes]:
        try:
            while piece := await self._access.do("be read", giving.next):
                yield piece
            if not giving.damaged:
                held.proven.update(pack.name for pack in giving.manifest.packs)
            elif held.index is not None and held.index.name == giving.manifest.name:
                held.missing = frozenset(giving.damaged)
        except Damaged as error:
            raise StoreFailed(f"The snapshot changed while it was read: {error}. Try again.") from None
        finally:
            self._giving.discard(giving)
            self._access.let_go(giving.close)
