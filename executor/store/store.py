"""Store: snapshots of sessions on a folder that may be slow, late, short of space, or shared with a stopping server.

A save writes one new pack with what has changed and then one new manifest; nothing is ever renamed or rewritten. The
newest manifest that proves itself, and whose packs are there, is the snapshot. What it replaces is deleted only when
all it refers to has been read back. No content is shared between sessions: whether a save is quick would tell one
what another one has.

Two servers may use a store at once while one takes over from the other. The later one has the higher epoch and wins;
the earlier one deletes nothing any more once it sees that; and what another server wrote is not built upon before
that one has had `settle` seconds to stop.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from executor.backend import Tree
from executor.errors import StoreFailed
from executor.events import Event
from executor.store.access import Access
from executor.store.epochs import Epoch
from executor.store.held import Table
from executor.store.loading import Loading, Parcel
from executor.store.medium import Folder, Medium
from executor.store.names import SHARDS, Name, key_of, shard_of
from executor.store.saving import Changed, Saving, Wanted
from executor.store.scan import Found, scan
from executor.store.snapshot import Record, Snapshot, Usage
from executor.store.taking import RACY
from executor.store.vanishing import Vanishing

SETTLE = 120.0
FAULTS = 20
"""Faults of one scan that are told one by one."""

Retired = tuple[str, dict[str, Any], Literal["age", "size"]]
"""A session that was deleted, its meta, and why."""


@dataclass(slots=True)
class _Reading:
    """What came of reading a part of the store: the sessions in it, what was wrong, and what is of no more use."""

    records: list[Record] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    leftovers: list[Name] = field(default_factory=list)


class Store:
    """Snapshots below `folder`, by session id. For one event loop; every call ends by deadlines.

    `max_bytes` caps the whole store (see `excess` and `retire`); `publish` hears of what is damaged. `patience` is in
    seconds, for each single call to the disk or volume; `settle` see above, and for as long after its start what is not
    there may only be late. Raises StoreFailed and NoSnapshot only.
    """

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int,
        publish: Callable[[Event], None] | None = None,
        medium: Medium | None = None,
        patience: float = 20.0,
        settle: float = SETTLE,
    ) -> None:
        self._access = access = Access(medium or Folder(folder), patience=patience, publish=publish)
        self._max_bytes = max_bytes
        self._began = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        self._table = Table()
        self._epoch = Epoch(access, settle=settle)
        self._vanishing = Vanishing(access.names, access.remove, access.fault)
        self._saving = Saving(access, self._epoch, self._table, self._listed, limit=max_bytes)
        self._loading = Loading(access, self._table, self._listed, settle=settle)
        self._unread: set[str] = set()
        self.ruins: list[Record] = []
        """Sessions that were found damaged, all their snapshots: whose they were, as far as that can be read."""

    async def open(self) -> list[Record]:
        """What the store holds, by session. Never raises: what cannot be read is published as a fault."""
        try:
            await self._epoch.claim()
        except StoreFailed as error:
            self._access.fault(f"{error} Snapshots can be read at best, for now.")
        found = await self._read(SHARDS)
        with suppress(StoreFailed):
            if self._epoch.number >= 0:
                # the listing of epochs may have come late
                await self._epoch.claim(above=max((n.order[0] for held in self._table for n in held.sizes), default=-1))
        await self._clear_up(found)
        return found.records

    async def open_rest(self) -> list[Record]:
        """Try again what could not be read before: what is found now. Never raises; see `unread` for what is left."""
        found = await self._read(self._unread)
        await self._clear_up(found)
        return found.records

    @property
    def unread(self) -> bool:
        """Whether there is a part that could not be read so far, so that its sessions are not found yet."""
        return bool(self._unread)

    async def save(
        self, session_id: str, meta: dict[str, Any], tree: Tree, changed: Changed, *, history: bytes = b""
    ) -> Record:
        """Make a snapshot of a folder that holds `tree`; `changed` is asked for a parcel of what is new or different.

        Where nothing is, not even `meta` or `history`, nothing is written. A failed save leaves the former snapshot as
        it was. Raises StoreFailed, and what `changed` raises.
        """
        key = key_of(session_id)
        meta = json.loads(json.dumps(meta))
        async with self._table.turn(key) as held:
            if order := self._vanishing.order(key):
                held.sequence = max(held.sequence, order[1])
            return await self._saving.save(held, Wanted(session_id, meta, tree, changed, history))

    async def stamp(self, session_id: str, changes: dict[str, Any], *, renewed: bool) -> Record:
        """The session's newest snapshot with `changes` in its meta, without asking for any content; `renewed` where the
        session is still as it was then, so that it counts as taken now.

        Raises StoreFailed, and leaves the snapshot as it was.
        """
        async with self._table.turn(key_of(session_id)) as held:
            return await self._saving.stamp(held, json.loads(json.dumps(changes)), renewed=renewed)

    def may_stamp(self, session_id: str) -> bool:
        """Whether `stamp` can be tried: what the newest snapshot refers to is known, and nobody else may delete it."""
        held = self._table.get(key_of(session_id))
        return (
            held is not None
            and held.index is not None
            and not held.missing
            and all(self._epoch.may_build_on(pack.name) for pack in held.index.packs)
        )

    def rebase(self, session_id: str, tree: Tree) -> None:
        """What was loaded now lies in a new folder, as `tree`: what is equal but for change times and inodes is known.

        For between `load` and any guest's code in that folder.
        """
        held = self._table.get(key_of(session_id))
        if held is None or held.index is None:
            return  # then all is taken anew
        entries = {
            path: kept._replace(print=tree[path])
            if path in tree and tree[path][:4] == kept.print[:4] and tree[path][4] <= time.time_ns() - RACY
            else kept
            for path, kept in held.index.entries.items()
        }
        held.index = replace(held.index, entries=entries)

    async def load(self, session_id: str) -> tuple[Snapshot, Parcel, bytes]:
        """The newest whole snapshot of a session, the parcel of its folder (folders first, links last), its history.

        Files with damage are left out of the parcel and named in `damaged`, which is complete when the parcel has
        been read to its end; so are those whose packs are gone, where no snapshot has all of its packs. Where the
        store cannot be read now, StoreFailed comes instead, also out of the parcel: try again. Raises NoSnapshot where
        there is nothing that could be read.
        """
        async with self._table.turn(key_of(session_id)) as held:
            return await self._loading.load(held, session_id)

    async def delete(self, session_id: str) -> None:
        """Delete all of a session; where the volume shows it a while longer, it is seen to in the background.

        Raises StoreFailed where something could not be deleted now; also then it is tried again, and the session is
        gone for every other call.
        """
        key = key_of(session_id)
        async with self._table.turn(key) as held:
            try:
                listed = await self._listed(key)
                failed = False
            except StoreFailed:
                listed, failed = [], True
            names = {*held.sizes, *held.written, *listed}
            # also what a server that is still stopping may write of it
            own = self._epoch.order(held.sequence + 1)
            self._table.forget(held)
            self._vanishing.watch(key, max([own, *(name.order for name in names)]))
            if not await self._access.remove(list(names)) or failed:
                raise StoreFailed("The snapshot could not be deleted completely yet; the server keeps trying.")

    async def retire(self, *, older_than: float, may_go: Callable[[str], bool]) -> list[Retired]:
        """Delete sessions that were taken more than `older_than` seconds ago, then the oldest ones until the store
        keeps to its size. `may_go` is asked for each by its id, right before: what it lets go, nobody may use any more.
        What cannot be deleted yet is not in the answer, but published; it is tried again.

        Ages are of wall time; what was taken in the future counts as new, and a clock that is set forward while the
        server runs makes nothing older.
        """
        now = min(time.time(), self._began + time.clock_gettime(time.CLOCK_BOOTTIME))
        await self._retire_unreadable(now - older_than)
        oldest_first = sorted(
            ((record, held) for held in self._table if (record := held.record) is not None),
            key=lambda found: found[0].taken_at,
        )
        deleted: list[Retired] = []
        excess = self.excess()
        for record, held in oldest_first:
            if held.record is not record or held.lock.locked():
                continue  # it is in use just now, or was
            old = now - record.taken_at > older_than
            if (not old and excess <= 0) or not may_go(record.session_id):
                continue
            excess -= held.bytes
            try:
                await self.delete(record.session_id)
            except StoreFailed as error:
                self._access.fault(f"{error}")
            else:
                deleted.append((record.session_id, record.meta, "age" if old else "size"))
        return deleted

    def usage(self) -> Usage:
        """What the store takes, as far as this server knows, with all that is still to be deleted."""
        return Usage(sum(held.bytes for held in self._table), sum(1 for held in self._table if held.record is not None))

    def excess(self) -> int:
        """Bytes by which the store is over its size; 0 where it keeps to it."""
        return max(0, self.usage().bytes - self._max_bytes)

    async def aclose(self) -> None:
        """Stop what is done in the background and let go of what is open. Idempotent."""
        await self._vanishing.aclose()
        self._loading.close()
        await self._access.aclose()

    async def _read(self, shards: Iterable[str]) -> _Reading:
        shards, self._unread = tuple(shards), set()
        reading = _Reading()
        await asyncio.gather(*(self._open_shard(shard, reading) for shard in shards))
        return reading

    async def _clear_up(self, reading: _Reading) -> None:
        for fault in reading.faults[:FAULTS]:
            self._access.fault(fault)
        if len(reading.faults) > FAULTS:
            self._access.fault(f"{len(reading.faults) - FAULTS} more files of the store are damaged or not complete.")
        if await self._access.remove(reading.leftovers):
            for name in reading.leftovers:
                if held := self._table.get(name.key):
                    held.sizes.pop(name, None)

    async def _open_shard(self, shard: str, reading: _Reading) -> None:
        try:
            names = await self._access.names(shard)
        except StoreFailed as error:
            self._unread.add(shard)
            reading.faults.append(f"{error} Sessions in a part of it are not found for now.")
            return
        # what is known by now is of this server, or was read before
        new = {key: mine for key, mine in _by_key(self._vanishing.remains(names)).items() if not self._table.get(key)}
        await asyncio.gather(*(self._open_key(key, mine, reading) for key, mine in new.items()))

    async def _open_key(self, key: str, names: list[Name], reading: _Reading) -> None:
        try:
            found: Found = await self._access.do("be read", partial(scan, self._access.medium, names))
        except StoreFailed as error:
            self._unread.add(shard_of(key))
            reading.faults.append(f"{error} A session ({key[:12]}) is not found for now.")
            return
        held = self._table.enter(key)
        held.sequence = max(name.order[1] for name in names)
        held.sizes = dict.fromkeys(names, 0) | found.sizes
        if found.newest is not None:
            reading.records.append(held.found(found.newest, {}))
        elif (ruin := found.ruin) is not None:
            self.ruins.append(Record(ruin.session_id, ruin.meta, ruin.taken_at, ruin.bytes, ruin.name.order[1]))
        reading.faults += found.faults
        reading.leftovers += found.leftovers

    async def _retire_unreadable(self, before: float) -> None:
        """Delete what proves nothing and was written before then (seconds since 1970)."""
        for held in self._table:
            if held.record is not None or held.lock.locked() or not held.sizes:
                continue
            names = list(held.sizes)
            with suppress(StoreFailed):
                modified = self._access.medium.modified
                times = [await self._access.do("be read", partial(modified, name.path)) for name in names]
                if max(times) < before and await self._access.remove(names):
                    self._table.forget(held)

    async def _listed(self, key: str) -> list[Name]:
        """What the store lists of a session, without what is deleted and only seems to be there."""
        return self._vanishing.remains([name for name in await self._access.names(shard_of(key)) if name.key == key])


def _by_key(names: list[Name]) -> dict[str, list[Name]]:
    result: dict[str, list[Name]] = {}
    for name in names:
        result.setdefault(name.key, []).append(name)
    return result
