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
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from executor.backend import Tree
from executor.errors import NoSnapshot, StoreFailed
from executor.events import Event, Fault
from executor.store.calls import Calls
from executor.store.giving import Giving
from executor.store.held import Held, Table
from executor.store.manifest import Head, History, Manifest
from executor.store.medium import Folder, Medium
from executor.store.names import (
    EPOCHS,
    SHARDS,
    Name,
    Order,
    epoch_path,
    epochs,
    key_of,
    new_nonce,
    parse,
    shard_of,
)
from executor.store.packs import Damaged, Pack, PackReader
from executor.store.plan import Plan, in_folders, plan
from executor.store.scan import Found, newest_first, read_all, read_manifest, scan, size_of
from executor.store.snapshot import Record, Snapshot, Usage
from executor.store.taking import RACY, Taking, history_sum
from executor.store.vanishing import Vanishing

_T = TypeVar("_T")

Changed = Callable[[list[str]], AsyncIterator[bytes]]

SETTLE = 120.0
LATE = (0.1, 0.3, 0.6, 1.0)
"""Seconds between the tries to read back what this server itself has written not long ago."""
RECENT = 600.0
FAULTS = 20
"""Faults of one scan that are told one by one."""
EPOCHS_KEPT = 8


class Store:
    """Snapshots below `folder`, by session id. For one event loop; every call ends by deadlines.

    `max_bytes` caps the whole store (see `excess` and `retire`); `publish` hears of what is damaged. `patience` is in
    seconds, for each single call to the disk or volume; `settle` see above. Raises StoreFailed and NoSnapshot only.
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
        self._medium: Medium = Folder(folder) if medium is None else medium
        self._max_bytes = max_bytes
        self._publish = publish
        self._settle = settle
        self._calls = Calls(patience=patience)
        self._table = Table()
        self._nonce = new_nonce()
        self._epoch: int | None = None
        self._opened = time.monotonic()
        self._vanishing = Vanishing(self._names, self._remove, partial(self._fault, "store"))
        self._giving: set[Giving] = set()
        self._claiming = asyncio.Lock()
        self._made: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def open(self) -> list[Record]:
        """What the store holds, by session. Never raises: what cannot be read is published as a fault."""
        self._opened = time.monotonic()
        try:
            await self._claim_epoch()
        except StoreFailed as error:
            self._fault("store", f"{error} Snapshots can be read at best, for now.")
        faults: list[str] = []
        leftovers: list[Name] = []
        await asyncio.gather(*(self._open_shard(shard, faults, leftovers) for shard in SHARDS))
        highest = max((name.order[0] for held in self._table for name in held.sizes), default=-1)
        if self._epoch is not None and highest >= self._epoch:
            # the listing of epochs came late
            with suppress(StoreFailed):
                await self._claim_epoch(above=highest)
        for fault in faults[:FAULTS]:
            self._fault("store", fault)
        if len(faults) > FAULTS:
            self._fault("store", f"{len(faults) - FAULTS} more files of the store are damaged or not complete.")
        if await self._remove(leftovers):
            for name in leftovers:
                if held := self._table.get(name.key):
                    held.sizes.pop(name, None)
        return [held.record for held in self._table if held.record is not None]

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
            await self._claim_epoch()
            if order := self._vanishing.order(key):
                held.sequence = max(held.sequence, order[1])
            former = await self._former(held)
            there = await self._there(held, former) if former else set()
            if former and held.record and former.meta == meta and former.history.sum == history_sum(history):
                names = {pack.name for pack in former.packs}
                if names <= there and former.tree() == tree:
                    return replace(held.record, written=0)
            # what another server has written may still be deleted by that one
            settled = time.monotonic() - self._opened >= self._settle
            usable = {name for name in there if settled or name.order[2] == self._nonce}
            todo = await asyncio.to_thread(plan, former, usable, tree, history)
            return await self._save(held, session_id, meta, tree, changed, history, todo)

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
        self._table.remember(held, replace(held.index, entries=entries), held.index_size)

    async def load(self, session_id: str, *, salvage: bool = False) -> tuple[Snapshot, AsyncIterator[bytes], bytes]:
        """The newest whole snapshot of a session, the parcel of its folder (folders first, links last), its history.

        Files with damage are left out of the parcel and named in `damaged`, which is complete when the parcel has
        been read to its end. Where the store cannot be read now, StoreFailed comes instead, also out of the parcel:
        try again. With `salvage`, what it refuses to read counts as damaged. Raises NoSnapshot.
        """
        key = key_of(session_id)
        async with self._table.turn(key) as held:
            giving, size = await self._choose(held, salvage)
            manifest = giving.manifest
            try:
                history = await self._do("be read", giving.history)
            except BaseException:
                self._let_go(giving.close)
                raise
            head = _head(manifest, size)
            record = held.found(head, dict(head.packs) | {manifest.name: size})
            self._table.remember(held, manifest, size)
        self._giving.add(giving)
        snapshot = Snapshot(
            session_id, manifest.meta, manifest.tree(), record.taken_at, record.bytes, record.sequence,
            giving.damaged, history is None,
        )  # fmt: skip
        return snapshot, self._give(giving, held), history or b""

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
            # nothing that another server may still write of it counts, unless it is a newer server
            own: Order = (self._epoch if self._epoch is not None else -1, held.sequence + 1, self._nonce)
            self._table.forget(held)
            self._vanishing.watch(key, max([own, *(name.order for name in names)]))
            if not await self._remove(list(names)) or failed:
                raise StoreFailed("The snapshot could not be deleted completely yet; the server keeps trying.")

    async def retire(
        self, *, older_than: float, keep: Collection[str]
    ) -> list[tuple[str, dict[str, Any], Literal["age", "size"]]]:
        """Delete sessions that were taken more than `older_than` seconds ago, then the oldest ones until the store
        keeps to its size; never those in `keep`. What cannot be deleted is not in the answer, but published.

        Ages are of wall time; what was taken in the future counts as new.
        """
        now = time.time()
        spared = {key_of(session_id) for session_id in keep}
        await self._retire_unreadable(now - older_than)
        oldest_first = sorted(
            (held for held in self._table if held.record is not None and held.key not in spared),
            key=lambda held: held.record.taken_at if held.record else 0.0,
        )
        deleted: list[tuple[str, dict[str, Any], Literal["age", "size"]]] = []
        excess = self.excess()
        for held in oldest_first:
            record = held.record
            if record is None or held.lock.locked():
                continue  # it is in use just now
            old = now - record.taken_at > older_than
            if not old and excess <= 0:
                continue
            excess -= held.bytes
            try:
                await self.delete(record.session_id)
            except StoreFailed as error:
                self._fault("store", f"{error}")
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
        for giving in tuple(self._giving):
            self._let_go(giving.close)
        self._giving.clear()
        if self._tasks:
            _, left = await asyncio.wait(set(self._tasks), timeout=5)
            for task in left:
                task.cancel()

    # Opening

    async def _claim_epoch(self, *, above: int = -1) -> None:
        """See to it that this server has an epoch, which is higher than all it sees."""
        async with self._claiming:
            if self._epoch is not None and self._epoch > above:
                return
            taken = epochs(await self._do("be listed", partial(self._medium.names, EPOCHS)))
            epoch = max([above, *(number for number, _ in taken)]) + 1
            await self._make(EPOCHS)
            await self._do("be written", partial(_write, self._medium, epoch_path(epoch, self._nonce), b""))
            self._epoch = epoch
            for number, nonce in sorted(taken)[:-EPOCHS_KEPT]:
                with suppress(StoreFailed):
                    await self._do("be tidied", partial(self._medium.delete, epoch_path(number, nonce)))

    async def _make(self, folder: str) -> None:
        if folder not in self._made:
            await self._do("be written", partial(self._medium.make, folder))
            self._made.add(folder)

    async def _open_shard(self, shard: str, faults: list[str], leftovers: list[Name]) -> None:
        try:
            names = await self._names(shard)
        except StoreFailed as error:
            faults.append(f"{error} Sessions in a part of it are not found for now.")
            return
        await asyncio.gather(*(self._open_key(key, mine, faults, leftovers) for key, mine in _by_key(names).items()))

    async def _open_key(self, key: str, names: list[Name], faults: list[str], leftovers: list[Name]) -> None:
        try:
            found: Found = await self._do("be read", partial(scan, self._medium, names))
        except StoreFailed as error:
            faults.append(f"{error} A session ({key[:12]}) is not found for now.")
            return
        held = self._table.enter(key)
        held.sequence = max(name.order[1] for name in names)
        held.sizes = dict.fromkeys(names, 0) | found.sizes
        if found.newest is not None:
            held.found(found.newest, {})
        faults += found.faults
        leftovers += found.leftovers

    # Saving

    async def _former(self, held: Held) -> Manifest | None:
        """What the next tree is compared with; None where all is to be taken anew."""
        if held.index is not None or held.newest is None:
            return held.index
        try:
            manifest, size = await self._calls.run(partial(read_manifest, self._medium, held.newest))
        except (OSError, Damaged):
            return None
        self._table.remember(held, manifest, size)
        return manifest

    async def _there(self, held: Held, former: Manifest) -> set[Name]:
        """The packs of the former snapshot that are there in full."""
        answers = await asyncio.gather(*(self._is_there(held, pack) for pack in former.packs))
        return {pack.name for pack, there in zip(former.packs, answers, strict=True) if there}

    async def _is_there(self, held: Held, pack: Pack) -> bool:
        if pack.name not in held.proven:
            return await self._prove(held, pack)
        try:
            return await self._calls.run(partial(size_of, self._medium, pack.name)) == pack.size
        except OSError:
            return False

    async def _prove(self, held: Held, pack: Pack) -> bool:
        """Whether a pack can be read back whole."""
        try:
            reader = await self._calls.run(partial(PackReader, self._medium, pack), late=PackReader.close)
        except (OSError, Damaged):
            return False
        try:
            block = 0
            while await self._calls.run(partial(reader.prove, block)):
                block += 1
        except (OSError, Damaged):
            return False
        finally:
            self._let_go(reader.close)
        held.proven.add(pack.name)
        return True

    async def _save(
        self,
        held: Held,
        session_id: str,
        meta: dict[str, Any],
        tree: Tree,
        changed: Changed,
        history: bytes,
        todo: Plan,
    ) -> Record:
        assert self._epoch is not None
        held.sequence += 1
        order: Order = (self._epoch, held.sequence, self._nonce)
        name, pack_name = Name(held.key, order, "snap"), Name(held.key, order, "pack")
        taken_at = time.time()
        newest = max((tree[path][4] for path in todo.wanted), default=0)
        if 0 <= time.time_ns() - newest < RACY:
            await asyncio.sleep(RACY / 1e9)  # so that every later change gets another change time
        taking = Taking(
            self._medium,
            pack_name,
            place=len(todo.packs),
            tree=tree,
            wanted=frozenset(todo.wanted),
            began=time.time_ns(),
            limit=self._max_bytes,
        )
        held.written[name] = held.written[pack_name] = time.monotonic()
        try:
            new_history, pack = await self._take(held, taking, changed, history, todo)
            packs = (*todo.packs, pack) if pack else todo.packs
            entries = await asyncio.to_thread(in_folders, todo.kept | taking.entries)
            manifest = Manifest(name, session_id, meta, taken_at, packs, entries, new_history)
            data = await asyncio.to_thread(manifest.encode)
            await self._do("be written", partial(_write, self._medium, name.path, data))
        except BaseException as error:
            cleaning = self._own(self._discard(held, taking, name, pack_name))
            if not isinstance(error, asyncio.CancelledError):
                await asyncio.wait([cleaning], timeout=1)
            raise
        head = _head(manifest, len(data))
        held.found(head, {name: len(data)} | ({pack.name: pack.size} if pack else {}))
        if not pack:
            held.written.pop(pack_name)
        self._table.remember(held, manifest, len(data))
        await self._replace(held, manifest, data)
        assert held.record is not None
        left_out = tuple(path for path in todo.wanted if path not in entries)
        return replace(held.record, written=len(data) + (pack.size if pack else 0), left_out=left_out)

    async def _take(
        self, held: Held, taking: Taking, changed: Changed, history: bytes, todo: Plan
    ) -> tuple[History, Pack | None]:
        """Fill the new pack."""
        await self._make(shard_of(held.key))
        if todo.wanted:
            pieces = changed(list(todo.wanted))
            try:
                async for piece in pieces:
                    await self._do("be written", partial(taking.absorb, piece))
            finally:
                if (aclose := getattr(pieces, "aclose", None)) is not None:
                    await aclose()
            taking.close()
        kept = todo.history
        if kept is None:
            kept = await self._do("be written", partial(taking.history, history))
        return kept, await self._do("be written", taking.finish)

    async def _discard(self, held: Held, taking: Taking, *names: Name) -> None:
        """Take a failed save back; what cannot be deleted now is at a later one."""
        with suppress(StoreFailed):
            await self._do("be tidied", taking.abandon)
        if await self._remove(list(names)):
            for name in names:
                held.written.pop(name, None)

    async def _replace(self, held: Held, manifest: Manifest, data: bytes) -> None:
        """Delete what a new snapshot replaces, if all of it can be read back."""
        with suppress(StoreFailed, OSError):
            if await self._calls.run(partial(read_all, self._medium, manifest.name)) != data:
                return
            unproven = [pack for pack in manifest.packs if pack.name not in held.proven]
            if not all([await self._prove(held, pack) for pack in unproven]):
                return
            needed = {manifest.name, *(pack.name for pack in manifest.packs)}
            listed = await self._listed(held.key)
            stale = [
                name
                for name in {*listed, *held.sizes, *held.written}
                if name not in needed and name.order < manifest.name.order
            ]
            if not stale or await self._outnumbered():
                return
            if await self._remove(stale):
                for name in stale:
                    held.sizes.pop(name, None)
                    held.written.pop(name, None)
                held.proven &= needed

    async def _outnumbered(self) -> bool:
        """Whether another server has taken over, or may have."""
        taken = epochs(await self._do("be listed", partial(self._medium.names, EPOCHS)))
        return any(number >= (self._epoch or 0) and nonce != self._nonce for number, nonce in taken)

    # Loading

    async def _choose(self, held: Held, salvage: bool) -> tuple[Giving, int]:
        """The newest snapshot whose manifest proves itself and whose packs are there in full, with its packs open."""
        why = ""
        for pause in (*LATE, None):
            listed: list[Name] = []
            try:
                listed = await self._listed(held.key)
            except StoreFailed as error:
                if not held.sizes:
                    raise
                why = f"{error}"
            names = newest_first({*listed, *held.sizes})
            if not names:
                raise NoSnapshot("The store holds nothing of that session.")
            held.sequence = max(held.sequence, names[0].order[1])
            refused = False
            for name in names:
                try:
                    return await self._open_snapshot(held, name, salvage)
                except Damaged as error:
                    why = why or f"{error}"
                except OSError as error:
                    why = why or f"{error.strerror}"
                    refused = refused or not isinstance(error, FileNotFoundError)
                written = held.written.get(name)
                if pause is not None and (refused or (written and time.monotonic() - written < RECENT)):
                    break  # an older one would be taken for the newest, which may only be late
                if refused and not salvage:
                    raise StoreFailed(f"The snapshot cannot be read now: {why}. Try again later.")
            else:
                break
            await asyncio.sleep(pause or 0)
        raise StoreFailed(f"No snapshot of the session is whole: {why}.")

    async def _open_snapshot(self, held: Held, name: Name, salvage: bool) -> tuple[Giving, int]:
        if held.index is not None and held.index.name == name:
            manifest, size = held.index, held.index_size
        else:
            manifest, size = await self._calls.run(partial(read_manifest, self._medium, name))
        opening = partial(Giving, self._medium, manifest, salvage=salvage)
        return await self._calls.run(opening, late=Giving.close), size

    async def _give(self, giving: Giving, held: Held) -> AsyncIterator[bytes]:
        try:
            while piece := await self._do("be read", giving.next):
                yield piece
            if not giving.damaged:
                held.proven.update(pack.name for pack in giving.manifest.packs)
            elif held.index is not None and held.index.name == giving.manifest.name:
                lost = set(giving.damaged)
                entries = {path: kept for path, kept in held.index.entries.items() if path not in lost}
                self._table.remember(held, replace(held.index, entries=entries), held.index_size)
        except Damaged as error:
            raise StoreFailed(f"The snapshot changed while it was read: {error}. Try again.") from None
        finally:
            self._giving.discard(giving)
            self._let_go(giving.close)

    # Deleting

    async def _retire_unreadable(self, before: float) -> None:
        """Delete what proves nothing and was written before then (seconds since 1970)."""
        for held in self._table:
            if held.record is not None or held.lock.locked() or not held.sizes:
                continue
            names = list(held.sizes)
            with suppress(StoreFailed):
                times = [await self._do("be read", partial(self._medium.modified, name.path)) for name in names]
                if max(times) < before and await self._remove(names):
                    self._table.forget(held)

    async def _remove(self, names: list[Name]) -> bool:
        """Delete names, manifests before the packs they refer to; False where something could not be deleted."""
        for suffix in ("snap", "pack"):
            mine = [name for name in names if name.suffix == suffix]
            try:
                await asyncio.gather(*(self._do("be tidied", partial(self._medium.delete, name.path)) for name in mine))
            except StoreFailed:
                return False
        return True

    # Calls

    async def _names(self, shard: str) -> list[Name]:
        """What a shard lists."""
        listed = await self._do("be listed", partial(self._medium.names, shard))
        return [name for text in listed if (name := parse(text)) is not None]

    async def _listed(self, key: str) -> list[Name]:
        """What the store lists of a session, without what is deleted and only seems to be there."""
        return self._vanishing.remains([name for name in await self._names(shard_of(key)) if name.key == key])

    async def _do(self, what: str, function: Callable[[], _T]) -> _T:
        try:
            return await self._calls.run(function)
        except OSError as error:
            raise StoreFailed(f"The store could not {what}: {error.strerror or type(error).__name__}.") from None

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _let_go(self, close: Callable[[], None]) -> None:
        """Close a file in the background: on a volume even that may hang."""

        async def closing() -> None:
            with suppress(StoreFailed):
                await self._do("be closed", close)

        self._own(closing())

    def _fault(self, where: str, detail: str) -> None:
        if self._publish is not None:
            self._publish(Fault(where=where, detail=detail))


def _by_key(names: list[Name]) -> dict[str, list[Name]]:
    result: dict[str, list[Name]] = {}
    for name in names:
        result.setdefault(name.key, []).append(name)
    return result


def _head(manifest: Manifest, size: int) -> Head:
    packs = tuple((pack.name, pack.size) for pack in manifest.packs)
    return Head(manifest.name, manifest.session_id, manifest.meta, manifest.taken_at, packs, size)


def _write(medium: Medium, path: str, data: bytes) -> None:
    writer = medium.create(path)
    try:
        writer.write(data)
        writer.close()
    finally:
        writer.abandon()
