"""Saving: one new pack with what has changed, then one new manifest, and when both prove good, the former ones go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from executor.backend import Tree
from executor.errors import StoreFailed
from executor.store.access import Access
from executor.store.epochs import Epoch
from executor.store.held import Held, Table
from executor.store.manifest import History, Manifest
from executor.store.names import Name, shard_of
from executor.store.packs import Damaged, Pack, PackReader
from executor.store.plan import Plan, in_folders, plan
from executor.store.scan import newest_first, read_manifest, size_of
from executor.store.snapshot import Record
from executor.store.taking import RACY, Taking, history_sum

Changed = Callable[[list[str]], AsyncIterator[bytes]]

PROVING = 4
"""Snapshots that are tried, the newest first, for one that can be read back and so replaces all before it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a session's next snapshot is to hold; see `Store.save`."""

    session_id: str
    meta: dict[str, Any]
    tree: Tree
    changed: Changed
    history: bytes


class Saving:
    """Makes snapshots; called in a session's turn. `listed` gives the names of a key, `limit` is in bytes."""

    def __init__(
        self,
        access: Access,
        epoch: Epoch,
        table: Table,
        listed: Callable[[str], Awaitable[list[Name]]],
        *,
        limit: int,
    ) -> None:
        self._access = access
        self._epoch = epoch
        self._table = table
        self._listed = listed
        self._limit = limit

    async def save(self, held: Held, wanted: Wanted) -> Record:
        """Raises StoreFailed, and what the source of the parcel raises."""
        await self._epoch.claim()
        former = await self._former(held)
        there = await self._there(held, former) if former else set()
        if former and held.record and self._unchanged(former, there, wanted):
            return replace(held.record, written=0)
        usable = {name for name in there if self._epoch.may_build_on(name)}
        todo = await asyncio.to_thread(plan, former, usable, wanted.tree, wanted.history)
        return await self._write(held, wanted, todo)

    async def stamp(self, held: Held, changes: dict[str, Any], *, renewed: bool) -> Record:
        """The newest snapshot once more, with `changes` in its meta: a new manifest, no contents. Raises StoreFailed,
        also where the snapshot cannot be built upon."""
        await self._epoch.claim()
        former = await self._former(held)
        if former is None or held.missing:
            raise StoreFailed("The snapshot could not be read again.")
        there = await self._there(held, former)
        if not all(pack.name in there and self._epoch.may_build_on(pack.name) for pack in former.packs):
            raise StoreFailed("The snapshot's contents cannot be relied on.")
        held.sequence += 1
        name = Name(held.key, self._epoch.order(held.sequence), "snap")
        taken_at = time.time() if renewed else former.taken_at
        manifest = replace(former, name=name, meta=former.meta | changes, taken_at=taken_at)
        held.written[name] = time.monotonic()
        try:
            record = await self._publish(held, manifest, None)
        except BaseException:
            self._access.own(self._withdraw(held, name))
            raise
        await self._replace(held, manifest)
        return record

    @staticmethod
    def _unchanged(former: Manifest, there: set[Name], wanted: Wanted) -> bool:
        return (
            former.meta == wanted.meta
            and former.history.sum == history_sum(wanted.history)
            and {pack.name for pack in former.packs} <= there
            and former.tree() == wanted.tree
        )

    async def _former(self, held: Held) -> Manifest | None:
        """What the next tree is compared with; None where all is to be taken anew."""
        if held.index is None and held.newest is not None:
            try:
                manifest, size = await self._access.ask(partial(read_manifest, self._access.medium, held.newest))
            except (OSError, Damaged):
                return None
            self._table.remember(held, manifest, size)
        if held.index is None or not held.missing:
            return held.index
        entries = {path: kept for path, kept in held.index.entries.items() if path not in held.missing}
        return replace(held.index, entries=entries)

    async def _there(self, held: Held, former: Manifest) -> set[Name]:
        """The packs of the former snapshot that are there in full."""
        answers = await asyncio.gather(*(self._is_there(held, pack) for pack in former.packs))
        return {pack.name for pack, there in zip(former.packs, answers, strict=True) if there}

    async def _is_there(self, held: Held, pack: Pack) -> bool:
        if pack.name not in held.proven:
            return await self._prove(held, pack)
        try:
            return await self._access.ask(partial(size_of, self._access.medium, pack.name)) == pack.size
        except OSError:
            return False

    async def _prove(self, held: Held, pack: Pack) -> bool:
        """Whether a pack can be read back whole."""
        try:
            opening = partial(PackReader, self._access.medium, pack)
            reader = await self._access.ask(opening, late=PackReader.close)
        except (OSError, Damaged):
            return False
        try:
            block = 0
            while await self._access.ask(partial(reader.prove, block)):
                block += 1
        except (OSError, Damaged):
            return False
        finally:
            self._access.let_go(reader.close)
        held.proven.add(pack.name)
        return True

    async def _write(self, held: Held, wanted: Wanted, todo: Plan) -> Record:
        held.sequence += 1
        order = self._epoch.order(held.sequence)
        name, pack_name = Name(held.key, order, "snap"), Name(held.key, order, "pack")
        taken_at = time.time()
        newest = max((wanted.tree[path][4] for path in todo.wanted), default=0)
        if 0 <= time.time_ns() - newest < RACY:
            await asyncio.sleep(RACY / 1e9)  # so that every later change gets another change time
        taking = Taking(
            self._access.medium,
            pack_name,
            place=len(todo.packs),
            tree=wanted.tree,
            wanted=frozenset(todo.wanted),
            began=time.time_ns(),
            limit=self._limit,
        )
        held.written[name] = held.written[pack_name] = time.monotonic()
        try:
            history, pack = await self._take(held, taking, wanted, todo)
            packs = (*todo.packs, pack) if pack else todo.packs
            entries = await asyncio.to_thread(in_folders, todo.kept | taking.entries)
            manifest = Manifest(name, wanted.session_id, wanted.meta, taken_at, packs, entries, history)
            record = await self._publish(held, manifest, pack)
        except BaseException as error:
            cleaning = self._access.own(self._discard(held, taking, name, pack_name))
            if not isinstance(error, asyncio.CancelledError):
                await asyncio.wait([cleaning], timeout=1)
            raise
        if not pack:
            held.written.pop(pack_name)
        await self._replace(held, manifest)
        return replace(record, left_out=tuple(path for path in todo.wanted if path not in entries))

    async def _publish(self, held: Held, manifest: Manifest, pack: Pack | None) -> Record:
        """Write a manifest, `pack` being what was written for it alone: from then on it is the snapshot."""
        data = await asyncio.to_thread(manifest.encode)
        await self._access.write(manifest.name.path, data)
        written = {manifest.name: len(data)} | ({pack.name: pack.size} if pack else {})
        record = held.found(manifest.head(len(data)), written)
        self._table.remember(held, manifest, len(data))
        return replace(record, written=sum(written.values()))

    async def _take(self, held: Held, taking: Taking, wanted: Wanted, todo: Plan) -> tuple[History, Pack | None]:
        """Fill the new pack."""
        await self._access.make(shard_of(held.key))
        if todo.wanted:
            pieces = wanted.changed(list(todo.wanted))
            try:
                async for piece in pieces:
                    await self._access.do("be written", partial(taking.absorb, piece))
            finally:
                if (aclose := getattr(pieces, "aclose", None)) is not None:
                    await aclose()
            taking.close()
        history = todo.history
        if history is None:
            history = await self._access.do("be written", partial(taking.history, wanted.history))
        return history, await self._access.do("be written", taking.finish)

    async def _discard(self, held: Held, taking: Taking, *names: Name) -> None:
        """Take a failed save back; what cannot be deleted now is at a later one."""
        with suppress(StoreFailed):
            await self._access.do("be tidied", taking.abandon)
        await self._withdraw(held, *names)

    async def _withdraw(self, held: Held, *names: Name) -> None:
        if await self._access.remove(list(names)):
            for name in names:
                held.written.pop(name, None)

    async def _replace(self, held: Held, manifest: Manifest) -> None:
        """Delete what a newer snapshot replaces that can be read back whole, which need not be the newest."""
        with suppress(StoreFailed):
            names = {*await self._listed(held.key), *held.sizes, *held.written}
            proven = await self._newest_proven(held, manifest, names)
            if proven is None:
                return
            packs = {pack.name for whole in (manifest, proven) for pack in whole.packs}
            needed = {manifest.name, proven.name} | packs
            stale = [name for name in names if name not in needed and name.order < proven.name.order]
            if not stale or await self._epoch.outnumbered():
                return
            if await self._access.remove(stale):
                for name in stale:
                    held.sizes.pop(name, None)
                    held.written.pop(name, None)
                    held.proven.discard(name)

    async def _newest_proven(self, held: Held, manifest: Manifest, names: set[Name]) -> Manifest | None:
        for name in newest_first(names)[:PROVING]:
            if name.order > manifest.name.order:
                continue
            try:
                whole, _ = await self._access.ask(partial(read_manifest, self._access.medium, name))
            except (OSError, Damaged):
                continue
            if all([pack.name in held.proven or await self._prove(held, pack) for pack in whole.packs]):
                return whole
        return None
