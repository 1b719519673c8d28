"""Snapshots: when a session is saved, and how it comes back from what was saved.

A session is saved when it has been idle for `SNAPSHOT_AFTER` seconds after a change, and one that is never idle between
two of its cells, `SNAPSHOT_EVERY` seconds after its last snapshot: a cell then waits for no more than the fork in which
its interpreter copies itself. The interpreters write and read their states inside of the sandbox; here they are bytes.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

from executor import account
from executor.backend import Backend, SessionRef
from executor.cells import Cells
from executor.errors import Busy, ExecutorError, NoSnapshot, NoSuchSession, StoreFailed
from executor.events import Bus, Fault, SnapshotFailed, SnapshotTaken
from executor.quotas import Quotas
from executor.results import LANGUAGES, HistoryEntry, LanguageState
from executor.sessions import Session, SessionTable, SnapshotState
from executor.settings import Settings
from executor.store import Record, Store
from executor.tasks import Tasks

LOOK_EVERY = 0.25
"""Seconds between two looks for sessions that are to be saved."""

AT_ONCE = 2
SLOW_AFTER = 2.0
"""Seconds after which saving a session makes way for that of others: how long it takes is the guest's doing."""

TURN_SECONDS = 1.0
"""Seconds for which saving waits for the code that runs; of what runs on it is tried again later."""

RETRY_AFTER = 10.0
"""Seconds after which a session that could not be saved is tried again."""

RENEWALS = 10
"""Times within `RETENTION_DAYS` that the snapshot of a session that is used, but not changed, is renewed."""

FIND_EVERY = 10.0
"""Seconds between two tries to read what could not be read of the store when the server started."""

BEGIN_SECONDS = 10.0
"""Seconds in which interpreters must have been asked for their state."""


class Snapshots:
    """The snapshots of one executor's sessions, in one store."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        *,
        table: SessionTable,
        quotas: Quotas,
        shared: Collection[str] = (),
        bus: Bus,
        tasks: Tasks,
    ) -> None:
        """`shared` are owners who stand for many people."""
        self._settings = settings
        self._backend = backend
        self._table = table
        self._quotas = quotas
        self._bus = bus
        self._tasks = tasks
        folder = Path(settings.state_dir).expanduser().absolute() if settings.state_dir else backend.scratch / "store"
        self._store = Store(folder, max_bytes=settings.store_max_mb << 20, publish=bus.publish)
        # by the rules that cells have, too: owners take turns, what takes long makes way, and nobody's states, however
        # long they take, are all that is being saved
        self._saves = Cells(AT_ONCE, AT_ONCE, shared=shared, long_after=SLOW_AFTER)
        self._asked: set[str] = set()
        self._looker: asyncio.Task[None] | None = None
        self._finder: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Find the sessions of former servers again. Raises StoreFailed where there can be no store."""
        self._take_in(await self._store.open())
        self._looker = self._tasks.own(self._look_on())
        if self._store.unread:
            self._finder = self._tasks.own(self._find_rest())

    def _take_in(self, records: list[Record]) -> None:
        found: list[Session] = []
        for record in records:
            session = account.session_of(record, self._settings)
            if session is None:
                self._bus.publish(Fault(where="store", detail="a snapshot says nothing useful about its session"))
                continue
            found.append(session)
        # where a server did not find a conversation's own session, it made another: the one used last is it from now on
        for session in sorted(found, key=lambda session: session.last_used):
            self._table.add(session)
            self._note(session)
        while self._store.ruins:
            if (session := account.session_of(self._store.ruins.pop(), self._settings)) is not None:
                self._table.mark_ruined(session)

    async def _find_rest(self) -> None:
        """Have the sessions found that were in a part of the store that could not be read at first."""
        while self._store.unread:
            await asyncio.sleep(FIND_EVERY)
            self._take_in(await self._store.open_rest())

    async def aclose(self) -> None:
        """Stop; what was not saved is not saved."""
        for task in (self._looker, self._finder):
            if task is not None:
                task.cancel()
        await self._store.aclose()

    # Saving

    async def enter(self, session: Session) -> None:
        """Have the store know of a new session, of which there is nothing to save yet.

        So it is found again, empty, where it or the server is killed before its first snapshot, and its owner is told.
        Where that fails, why is published.
        """
        snapshot = session.snapshot
        async with snapshot.lock:
            if session.ended or snapshot.taken_at is not None:
                return
            try:
                meta = account.meta_of(session, {}, executions=0, parked=False, blank=True)
                record = await self._store.save(session.id, meta, {}, _no_pieces)
                if session not in self._table:  # it ended meanwhile, with its processes
                    await self._store.delete(session.id)
            except StoreFailed as error:
                self._bus.publish(SnapshotFailed(session_id=session.id, owner=session.owner, detail=str(error)))
                return
            snapshot.taken_at, snapshot.bytes = record.taken_at, record.bytes
            snapshot.blank, snapshot.clean, snapshot.says_parked = True, False, False
            self._note(session)

    async def take(self, session: Session, *, parked: bool = False, wait: bool = False) -> bool:
        """Save a session; `parked` where nothing will come after it. False, and why is published, where it failed.

        Code that runs has a second to end, or with `wait`, all the time that it takes.
        """
        snapshot = session.snapshot
        async with snapshot.lock:
            began = time.monotonic()
            if session.ended or session.ref is None:
                return False
            try:
                record, changes = await self._save(session, session.ref, parked=parked, wait=wait)
            except Exception as error:
                # whatever it is, it is this session's, and must not be everybody's
                snapshot.retry_at = time.monotonic() + (0.5 if isinstance(error, Busy) else RETRY_AFTER)
                if not isinstance(error, Busy):
                    snapshot.failures += 1
                    detail = str(error) if isinstance(error, ExecutorError) else f"It failed: {error!r}"
                    failed = SnapshotFailed(session_id=session.id, owner=session.owner, detail=detail)
                    self._bus.publish(failed)
                return False
            snapshot.taken_at, snapshot.bytes = record.taken_at, record.bytes
            self._note(session)
            snapshot.failures = 0
            snapshot.blank, snapshot.says_parked = False, parked
            # only now, and only if nothing came meanwhile: who parks it beside us must not take it for saved
            as_it_is = snapshot.changes == changes
            snapshot.dirty_since = None if as_it_is else snapshot.changed_at
            snapshot.clean = parked and as_it_is
            lost = sum(len(state.lost) for state in snapshot.states.values()) + len(record.left_out)
            self._bus.publish(
                SnapshotTaken(
                    session_id=session.id,
                    owner=session.owner,
                    seconds=time.monotonic() - began,
                    size=record.bytes,
                    written=record.written,
                    lost=lost,
                )
            )
            return True

    def may_stand(self, session: Session) -> bool:
        """Whether a session's snapshot may stay the newest one when it is parked: it says so, or can be made to."""
        snapshot = session.snapshot
        if snapshot.taken_at is None or snapshot.blank or snapshot.dirty_since is not None:
            return False
        return self._says(session, parked=True) or self._store.may_stamp(session.id)

    async def restamp(self, session: Session) -> None:
        """Have a session's snapshot say whether something may have come after it: so it is once the session has been
        woken, and no longer when it was parked as it is saved.

        Where that fails, why is published. Until it is done, or the session saved, who finds the snapshot after a crash
        is told the one for the other.
        """
        snapshot = session.snapshot
        async with snapshot.lock:
            parked = session.ref is None and snapshot.clean
            if session.ended or snapshot.taken_at is None or snapshot.blank or self._says(session, parked=parked):
                return
            if not self._store.may_stamp(session.id):
                return
            try:
                # nothing else: the rest may be ahead of what is in the snapshot
                changes = {"parked": parked, "last_used": session.last_used, "untold": list(session.notices)}
                record = await self._store.stamp(session.id, changes, renewed=parked)
            except StoreFailed as error:
                snapshot.retry_at = time.monotonic() + RETRY_AFTER
                self._bus.publish(SnapshotFailed(session_id=session.id, owner=session.owner, detail=str(error)))
                return
            snapshot.taken_at, snapshot.bytes, snapshot.says_parked = record.taken_at, record.bytes, parked
            self._note(session)

    def _note(self, session: Session) -> None:
        """Its owner's quota counts what is stored of a session from the moment on that it is stored."""
        # one that was closed meanwhile is forgotten, and must stay so
        if session in self._table:
            self._quotas.note_snapshot(session.owner, session.id, session.snapshot.bytes)

    def _says(self, session: Session, *, parked: bool) -> bool:
        snapshot = session.snapshot
        if not parked or not snapshot.says_parked:
            return snapshot.says_parked is parked
        # the age of a snapshot is that of its session: one that is only looked at is not to expire
        assert snapshot.taken_at is not None
        return session.last_used - snapshot.taken_at < self._settings.retention_days * 86_400 / RENEWALS

    async def _save(self, session: Session, ref: SessionRef, *, parked: bool, wait: bool) -> tuple[Record, int]:
        """What was stored, and how many changes of the session it holds."""
        async with self._between_cells(session, patience=None if wait else TURN_SECONDS):
            saving, executions, changes = await self._ask(session, ref, final=parked)
        try:
            states = await saving
        except asyncio.CancelledError:
            saving.cancel()
            raise
        found = {**session.snapshot.states, **{state.language: state for state in states}}
        tree = await self._backend.tree(ref)
        meta = account.meta_of(session, found, executions=executions, parked=parked)
        history = await asyncio.to_thread(account.history_bytes, list(session.history))
        record = await self._store.save(
            session.id, meta, tree, lambda paths: self._backend.pack(ref, paths), history=history
        )
        session.snapshot.states, session.snapshot.executions = found, executions
        return record, changes

    @asynccontextmanager
    async def _between_cells(self, session: Session, *, patience: float | None) -> AsyncIterator[None]:
        """While inside, no cell begins. Raises Busy where one runs on for `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                await session.turn.acquire()
        except TimeoutError:
            raise Busy("Code runs in the session. It is saved when that has ended.") from None
        try:
            yield
        finally:
            session.turn.release()

    async def _ask(
        self, session: Session, ref: SessionRef, *, final: bool
    ) -> tuple[asyncio.Task[list[LanguageState]], int, int]:
        """The work that the interpreters have begun, and how many cells and changes came before."""
        begun = asyncio.Event()
        changes = session.snapshot.changes
        limit = self._settings.snapshot_max_mb << 20
        saving = self._tasks.own(self._backend.save(ref, limit=limit, begun=begun.set, final=final))
        waiting = asyncio.ensure_future(begun.wait())
        try:
            await asyncio.wait({saving, waiting}, timeout=BEGIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            saving.cancel()
            raise
        finally:
            waiting.cancel()
        return saving, session.executions, changes

    async def _look_on(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_EVERY, self._settings.snapshot_after / 2))
            for session in self._table.live():
                if session.id not in self._asked and self._is_due(session):
                    self._asked.add(session.id)
                    self._tasks.own(self._take_one(session))
                elif self._is_to_be_stamped(session):
                    self._tasks.own(self.restamp(session))

    async def _take_one(self, session: Session) -> None:
        try:
            async with self._saves.turn(session.owner, math.inf):
                if self._is_due(session):
                    await self.take(session)
        finally:
            self._asked.discard(session.id)

    def _is_to_be_stamped(self, session: Session) -> bool:
        """Whether a live session's snapshot says that it was parked: when it was woken, that could not be mended."""
        snapshot = session.snapshot
        if not snapshot.says_parked or snapshot.lock.locked() or session.life.locked():
            return False
        return time.monotonic() >= snapshot.retry_at and self._store.may_stamp(session.id)

    def _is_due(self, session: Session) -> bool:
        snapshot, now = session.snapshot, time.monotonic()
        if snapshot.dirty_since is None or snapshot.lock.locked() or now < snapshot.retry_at or session.life.locked():
            return False
        idle = session.running is None and not session.waiting
        if idle and now - snapshot.changed_at >= self._settings.snapshot_after:
            return True
        # between two cells: its turn comes after the one that runs now
        return now - snapshot.dirty_since >= self._settings.snapshot_every and not _runs_long(session)

    # Coming back

    async def bring_back(self, session: Session, ref: SessionRef) -> account.Told:
        """Put a session's snapshot into the fresh backend session `ref`: what is said of what came back and what not.

        Raises StoreFailed where the store cannot be read now; what is lost for good is in the sentences.
        """
        try:
            snapshot, parcel, history = await self._store.load(session.id)
        except NoSnapshot:
            session.snapshot = SnapshotState()
            self._note(session)
            session.packages.clear()
            said = "Session restored empty: its snapshot is gone or damaged, its variables and files are lost."
            return account.Told(lasting=[said])
        account.adopt(session, snapshot, self._settings)
        async with aclosing(parcel):
            await self._backend.unpack(ref, parcel)
        # before any code of the guest's, which unpickling is, can touch the folder
        self._store.rebase(session.id, await self._backend.tree(ref))
        wanted = [language for language in LANGUAGES if language in session.snapshot.states]
        states = await self._backend.restore(ref, wanted, session.numbers)
        if not session.history:
            session.history.extend(account.history_from(history))
        told = account.told(session, snapshot, states)
        for state in states:
            known = session.snapshot.states.get(state.language)
            lost = {(name.name, name.type): name for name in (*(known.lost if known else ()), *state.lost)}
            session.snapshot.states[state.language] = LanguageState(
                state.language, state.names, tuple(lost.values()), state.problem
            )
        return told

    async def history(self, session: Session) -> list[HistoryEntry]:
        """What ran in a parked session. Raises StoreFailed where the store cannot be read now."""
        try:
            _, parcel, history = await self._store.load(session.id)
        except NoSnapshot:
            return []
        await parcel.aclose()
        return account.history_from(history)

    # Forgetting

    async def delete(self, session: Session) -> None:
        """Leave nothing of a session in the store."""
        async with session.snapshot.lock:
            await self._store.delete(session.id)

    def excess(self) -> int:
        """Bytes by which the store is over `STORE_MAX_MB`."""
        return self._store.excess()

    async def retire(self, let_go: Callable[[Session], bool]) -> None:
        """Delete the snapshots that are too old or too many. `let_go` ends a session whose turn it is, at once; False
        where it is in use."""

        def may_go(session_id: str) -> bool:
            try:
                return let_go(self._table.get(session_id))
            except NoSuchSession:
                return True

        await self._store.retire(older_than=self._settings.retention_days * 86_400, may_go=may_go)


def _runs_long(session: Session) -> bool:
    run = session.running
    return run is not None and run.started_at is not None and time.monotonic() - run.started_at > 1.0


async def _no_pieces(paths: list[str]) -> AsyncIterator[bytes]:
    """The parcel of nothing."""
    for _ in paths:
        yield b""
