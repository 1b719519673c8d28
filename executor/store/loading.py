"""Loading: the newest whole snapshot of a session becomes a parcel."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Self

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


class Parcel:
    """The parcel of a snapshot, to be read once. Its packs are open until it has been read or closed: close it."""

    def __init__(self, pieces: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        self._pieces = pieces
        self._close = close

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next piece. Raises StoreFailed; whatever ends it, it is closed."""
        try:
            return await anext(self._pieces)
        except BaseException:
            self._close()
            raise

    async def aclose(self) -> None:
        """Let go of what is open, also where nothing was read. Idempotent."""
        self._close()


class Loading:
    """Reads snapshots; `listed` gives the names of a key. `settle`: seconds after the start in which what a former
    server wrote may still be on its way."""

    def __init__(
        self, access: Access, table: Table, listed: Callable[[str], Awaitable[list[Name]]], *, settle: float
    ) -> None:
        self._access = access
        self._table = table
        self._listed = listed
        self._giving: set[Giving] = set()
        self._settled_at = time.monotonic() + settle

    async def load(self, held: Held, session_id: str) -> tuple[Snapshot, Parcel, bytes]:
        """See `Store.load`; called in the session's turn."""
        giving, size = await self._choose(held)
        manifest = giving.manifest
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
            history_lost=giving.history is None,
        )
        return snapshot, Parcel(self._give(giving, held), partial(self._let_go, giving)), giving.history or b""

    def close(self) -> None:
        """Let go of what is being read. Idempotent."""
        for giving in tuple(self._giving):
            self._let_go(giving)

    def _let_go(self, giving: Giving) -> None:
        if giving in self._giving:
            self._giving.discard(giving)
            self._access.let_go(giving.close)

    async def _choose(self, held: Held) -> tuple[Giving, int]:
        """The newest snapshot whose manifest proves itself and whose packs are there in full, with its packs open.

        An older one is not taken for the newest where that may only be late, or refused for a moment. Where none is
        whole, and that is for good, it is the newest one that has a manifest.
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
                    return await self._open(held, name)
                except _NotThere as error:
                    why = why or f"{error}"
                    late = name not in held.written and time.monotonic() < self._settled_at
                    if late and pause is not None:
                        break
                    if late:
                        raise StoreFailed(
                            f"The snapshot is not all there yet: {error}. Try again in a minute."
                        ) from None
                except Damaged as error:
                    why = why or f"{error}"
                except OSError as error:
                    why = why or f"{error.strerror}"
                    refused = not isinstance(error, FileNotFoundError)
                recent = time.monotonic() - held.written.get(name, -RECENT) < RECENT
                if pause is not None and (refused or recent):
                    break
                if refused:
                    raise StoreFailed(f"The snapshot cannot be read now: {why}. Try again later.")
            else:
                return await self._choose_damaged(held, names, why)
            await asyncio.sleep(pause or 0)
        raise AssertionError("the last try ends in one way or the other")

    async def _choose_damaged(self, held: Held, names: list[Name], why: str) -> tuple[Giving, int]:
        for name in names:
            try:
                return await self._open(held, name, salvage=True)
            except (Damaged, FileNotFoundError):
                continue
            except OSError as error:
                raise StoreFailed(f"The snapshot cannot be read now: {error.strerror}. Try again later.") from None
        raise NoSnapshot(f"No snapshot of the session can be read: {why}.")

    async def _names(self, held: Held) -> list[Name]:
        try:
            return await self._listed(held.key)
        except StoreFailed:
            if not held.sizes:
                raise
            return []

    async def _open(self, held: Held, name: Name, *, salvage: bool = False) -> tuple[Giving, int]:
        if held.index is not None and held.index.name == name:
            manifest, size = held.index, held.index_size
        else:
            manifest, size = await self._access.ask(partial(read_manifest, self._access.medium, name))
        opening = partial(Giving, self._access.medium, manifest, salvage=salvage)
        try:
            return await self._access.ask(opening, late=Giving.close), size
        except (Damaged, FileNotFoundError) as error:
            raise _NotThere(f"{error}") from None

    async def _give(self, giving: Giving, held: Held) -> AsyncIterator[bytes]:
        try:
            for piece in giving.pieces:
                yield piece
            while not giving.small and (piece := await self._access.do("be read", giving.next)):
                yield piece
            if not giving.damaged:
                held.proven.update(pack.name for pack in giving.manifest.packs)
            elif held.index is not None and held.index.name == giving.manifest.name:
                held.missing = frozenset(giving.damaged)
        except Damaged as error:
            raise StoreFailed(f"The snapshot changed while it was read: {error}. Try again.") from None


class _NotThere(Damaged):
    """A manifest proves itself, but its packs are not there in full."""
