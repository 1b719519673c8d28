"""Keeper: opens sessions, finds them for their owners, parks and wakes them, and ends them when their time has come.

A session lives (it has processes) or is parked (it has a snapshot). Whoever needs it live says so by `use` and the
like: while that lasts it is not parked. With snapshots switched off, or no store to keep them in, sessions end instead.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from executor.backend import Backend, SessionSpec
from executor.errors import ExecutorError, SandboxTooWeak, StoreFailed
from executor.events import Bus, Fault, SessionClosed, SessionOpened, SessionParked, SessionRestored
from executor.places import Places
from executor.quotas import Quotas
from executor.sandbox.report import SandboxReport
from executor.sessions import EndReason, Session, SessionTable, history_of, new_id
from executor.settings import Settings
from executor.tasks import Tasks

if TYPE_CHECKING:
    from executor.snapshots import Snapshots

SWEEP_EVERY = 5.0
"""Seconds between two looks for sessions that have been idle for long or died."""

RETIRE_EVERY = 600.0
"""Seconds between two looks for snapshots that are too old or too many."""

LOOK_SECONDS = 2.0
"""Seconds in which a leader must have told what runs in its session."""

RENEWALS = 10
"""Times within `RETENTION_DAYS` that the snapshot of a session that is used, but not changed, is renewed."""

PARK_AT_ONCE = 4

UNSAVED = 3
"""Failed tries in a row after which a session counts as one that cannot be saved."""

ParkReason = Literal["idle", "room", "shutdown"]


class Keeper:
    """Keeps the sessions of one backend."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        sandbox: SandboxReport,
        *,
        table: SessionTable,
        snapshots: Snapshots | None,
        quotas: Quotas,
        bus: Bus,
        tasks: Tasks,
    ) -> None:
        self.table = table
        self._settings = settings
        self._backend = backend
        self._sandbox = sandbox
        self._snapshots = snapshots
        self._quotas = quotas
        self._bus = bus
        self._tasks = tasks
        self._places = Places(settings.max_sessions, self.make_room, tasks=tasks, publish=bus.publish)
        self._making: dict[tuple[str, str], asyncio.Task[Session]] = {}
        self._retire_at = time.monotonic()
        self._sweeper = tasks.own(self._sweep_on())

    async def aclose(self, deadline: float) -> None:
        """Park every session within `deadline` seconds, and name those that it did not suffice for."""
        self._sweeper.cancel()
        live = self.table.live()
        if self._snapshots is not None:
            few = asyncio.Semaphore(PARK_AT_ONCE)

            async def park(session: Session) -> None:
                async with few:
                    await self._park(session, "shutdown", force=True)

            tasks = {self._tasks.own(park(session)): session for session in live}
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=deadline)
                for task in late:
                    task.cancel()
                    self._bus.publish(
                        Fault(
                            where="shutdown",
                            detail=f"session {tasks[task].id} was not saved within {deadline:g} s: it is as of its "
                            "last snapshot, or lost where it had none",
                        )
                    )
        for session in self.table.live():
            self._say_closed(session, "shutdown")

    # Finding, and having it live

    @asynccontextmanager
    async def use(self, session_id: str, owner: str, conversation: str | None) -> AsyncIterator[Session]:
        """The caller's session, live for as long as this lasts. Raises NoSuchSession or Busy."""
        async with self._in_use(self.table.find(session_id, owner, conversation)) as session:
            yield session

    @asynccontextmanager
    async def use_target(self, session_id: str | None, owner: str, conversation: str | None) -> AsyncIterator[Session]:
        """The session that is named, else the conversation's own, else a fresh one; live for as long as this lasts."""
        if session_id is not None:
            session = self.table.find(session_id, owner, conversation)
        elif conversation is not None:
            session = await self.own_session(owner, conversation)
        else:
            session = await self.create(owner, None)
        async with self._in_use(session):
            yield session

    async def own_session(self, owner: str, conversation: str) -> Session:
        """The conversation's own session, live or parked, made on first use."""
        session = self.table.of_conversation(owner, conversation)
        if session is not None and not await self._is_dead(session):
            return session
        key = owner, conversation
        making = self._making.get(key)
        if making is None:
            making = self._tasks.own(self.create(owner, conversation, own=True))
            self._making[key] = making
            making.add_done_callback(lambda _: self._making.pop(key, None))
        # two first calls of a conversation share one session; neither going away takes it from the other
        return await asyncio.shield(making)

    @asynccontextmanager
    async def _in_use(self, session: Session) -> AsyncIterator[Session]:
        session.using += 1
        try:
            await self._have_live(session)
            yield session
        finally:
            session.using -= 1
            if not session.busy:
                self._places.look_again()

    async def _have_live(self, session: Session) -> None:
        if session.ref is not None and not session.life.locked() and self._backend.alive(session.ref):
            return
        # shielded: a caller that goes away leaves a session that is whole, live or parked
        await asyncio.shield(self._tasks.own(self._wake(session)))

    async def _wake(self, session: Session) -> None:
        async with session.life:
            if session.ref is not None:
                if self._backend.alive(session.ref):
                    return
                await self._fall(session)
            self.table.find(session.id, session.owner, session.conversation)
            assert self._snapshots is not None, "only snapshots leave a session without processes"
            self._must_hold()
            began = time.monotonic()
            await self._admit_memory(session.owner)
            await self._places.acquire(session.owner, began + self._settings.queue_wait)
            try:
                ref = await self._backend.create(SessionSpec(session.id))
                try:
                    said = await self._snapshots.bring_back(session, ref)
                except BaseException:
                    await self._backend.close(ref)
                    raise
            except BaseException:
                self._places.release()
                raise
            session.ref = ref
            session.touch()
            session.notices.extend(said)
            lost = sum(len(state.lost) for state in session.snapshot.states.values())
            self._bus.publish(
                SessionRestored(session_id=session.id, owner=session.owner, seconds=time.monotonic() - began, lost=lost)
            )

    # Opening

    async def create(self, owner: str, conversation: str | None, *, own: bool = False) -> Session:
        """A new session. Raises Busy, QuotaExceeded or SandboxTooWeak."""
        self._must_hold()
        self._quotas.admit_session(owner, self.table.count(owner))
        self._quotas.admit_disk(owner)
        await self._admit_memory(owner)
        began = time.monotonic()
        await self._places.acquire(owner, began + self._settings.queue_wait)
        try:
            session_id = new_id()
            ref = await self._backend.create(SessionSpec(session_id))
        except BaseException:
            self._places.release()
            raise
        session = Session(
            id=session_id,
            owner=owner,
            conversation=conversation,
            own=own,
            ref=ref,
            history=history_of(self._settings),
        )
        self.table.add(session)
        if self._snapshots is not None:
            # beside the first call, which need not wait for a volume
            self._tasks.own(self._snapshots.enter(session))
        self._bus.publish(SessionOpened(session_id=session.id, owner=owner, seconds=time.monotonic() - began))
        return session

    async def _admit_memory(self, owner: str) -> None:
        """Raises QuotaExceeded where the owner's live sessions take too much even when all idle ones are parked."""
        idle = [session for session in self.table.live() if session.owner == owner and not session.busy]
        idle.sort(key=lambda session: session.touched)
        for session in idle:
            if self._snapshots is None or not self._quotas.excess_memory(owner):
                break
            await self._park(session, "room")
        self._quotas.admit_memory(owner)

    def _must_hold(self) -> None:
        if self._sandbox.level == "weak" and not self._settings.allow_weak_sandbox:
            raise SandboxTooWeak(
                "This host cannot hold hostile code, so nothing is executed here. Missing: "
                + " ".join(self._sandbox.missing())
                + " ALLOW_WEAK_SANDBOX=1 executes all the same: every user can then reach the others' files."
            )
        user = self._sandbox.layers.get("user")
        if self._sandbox.level == "weak" and user is not None and not user.on and os.geteuid() == 0:
            raise SandboxTooWeak(
                "This host cannot hold hostile code, and here it would run as root, with the whole machine in reach. "
                "Nothing is executed. Start as an ordinary user."
            )

    # Parking

    async def make_room(self) -> bool:
        """Park the session that is idle longest, or end it where nothing can be parked; False where all are at work.

        One whose variables no snapshot can keep is taken only where there is no other, and so is one in which processes
        run on that its code has started: parking ends them.
        """
        idle = [session for session in self.table.live() if not session.busy and not session.life.locked()]
        idle.sort(key=lambda s: (any(state.problem for state in s.snapshot.states.values()), s.touched))
        working = []
        for session in idle:
            if await self._works_on(session):
                working.append(session)
            elif await self._take_place(session):
                return True
        for session in working:
            if await self._take_place(session):
                return True
        for session in idle:
            if await self._give_up(session):
                return True
        return False

    async def _take_place(self, session: Session) -> bool:
        """Park a session for its place, or end it where nothing can be parked; False where it is in use by now."""
        if session.ref is None or session.busy or session.life.locked():
            return False
        if self._snapshots is None:
            await self.end(session, "evicted")
            return True
        return await self._park(session, "room")

    def _is_idle(self, session: Session) -> bool:
        """Whether nobody has used a session for `PARK_AFTER`."""
        unused = time.monotonic() - session.touched > self._settings.park_after
        return unused and not session.busy and not session.life.locked()

    async def _works_on(self, session: Session) -> bool:
        """Whether processes run in a session, between its cells, that its code has started."""
        if session.ref is None:
            return False
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return (await self._backend.stats(session.ref)).background > 0
        except (ExecutorError, TimeoutError):
            return False  # what is wrong with it turns up when it is parked

    async def _give_up(self, session: Session) -> bool:
        """End the processes of a session that cannot be saved, and that nobody has used for `PARK_AFTER`: else whoever
        sees to it that his cannot be saved would hold its place for ever. Its owner is told."""
        if session.snapshot.failures < UNSAVED or not self._is_idle(session):
            return False
        async with session.life:
            if session.ref is None or session.busy:
                return False
            await self._fall(session)
            return True

    async def _park(self, session: Session, reason: ParkReason, *, force: bool = False) -> bool:
        """Save a session and end its processes; False where it is wanted meanwhile, or cannot be saved."""
        assert self._snapshots is not None
        async with session.life:
            if session.ref is None or session.ended or (session.busy and not force):
                return False
            if not self._backend.alive(session.ref):
                await self._fall(session)
                return True
            touched = session.touched
            snapshot = session.snapshot
            async with snapshot.lock:  # what is being saved now must be seen through, or it ends with the processes
                pass
            if not self._is_as_saved(session) and not await self._snapshots.take(session, parked=True):
                return False
            if not force and (session.busy or session.touched != touched):
                session.snapshot.clean = False
                return False
            await self._close_backend(session)
            self._quotas.parked(session.owner, session.id)
            session.history.clear()
            self._bus.publish(SessionParked(session_id=session.id, owner=session.owner, reason=reason))
            return True

    def _is_as_saved(self, session: Session) -> bool:
        """Whether a session's snapshot may stay the newest one when it is parked again."""
        snapshot = session.snapshot
        if snapshot.taken_at is None or snapshot.dirty_since is not None or not snapshot.clean:
            return False
        # the age of a snapshot is that of its session: one that is only looked at is not to expire
        return session.last_used - snapshot.taken_at < self._settings.retention_days * 86_400 / RENEWALS

    async def _fall(self, session: Session) -> None:
        """A session's processes are gone, unasked: what is left of it is its snapshot, if it has one."""
        await self._close_backend(session)
        self._quotas.parked(session.owner, session.id)
        if self._snapshots is None or session.snapshot.taken_at is None:
            if self.table.remove(session, "failed"):
                self._say_closed(session, "failed")
            return
        session.snapshot.clean = session.snapshot.clean and session.snapshot.dirty_since is None
        session.snapshot.dirty_since = None
        session.history.clear()
        self._bus.publish(SessionParked(session_id=session.id, owner=session.owner, reason="failed"))

    async def _is_dead(self, session: Session) -> bool:
        """Whether nothing is left of a session; what has died is cleared up."""
        if session.ref is not None and not self._backend.alive(session.ref):
            async with session.life:
                if session.ref is not None and not self._backend.alive(session.ref):
                    await self._fall(session)
        return session.ended

    async def _close_backend(self, session: Session) -> None:
        if (ref := session.ref) is None:
            return
        session.ref = None
        # before its processes have ended: they do so within tens of milliseconds, which nobody need wait for
        self._places.release()
        await self._backend.close(ref)

    # Ending

    async def end(self, session: Session, reason: EndReason) -> None:
        """End a session with all its processes, variables, files and snapshots."""
        if not self.table.remove(session, reason):
            return
        self._say_closed(session, reason)
        self._quotas.forget(session.owner, session.id)
        await asyncio.shield(self._tasks.own(self._clear(session)))

    async def _clear(self, session: Session) -> None:
        # whoever saves or wakes it now gives up when its processes go
        await self._close_backend(session)
        async with session.life:
            await self._close_backend(session)
            if self._snapshots is not None:
                try:
                    await self._snapshots.delete(session)
                except StoreFailed as error:
                    # it is gone for every call, and deleting goes on
                    self._bus.publish(Fault(where="store", detail=str(error)))

    def _say_closed(self, session: Session, reason: EndReason) -> None:
        age = time.time() - session.created_at
        self._bus.publish(SessionClosed(session_id=session.id, owner=session.owner, reason=reason, age=max(0.0, age)))

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_EVERY, self._settings.park_after / 4))
            try:
                await self._sweep()
            except ExecutorError as error:
                self._bus.publish(Fault(where="sweep", detail=str(error)))

    async def _sweep(self) -> None:
        now = time.monotonic()
        for session in self.table.live():
            if session.busy or session.life.locked() or await self._is_dead(session):
                continue
            if self._is_idle(session) and not await self._works_on(session) and self._is_idle(session):
                if self._snapshots is None:
                    await self.end(session, "expired")
                else:
                    await self._park(session, "idle")
        if self._snapshots is not None and (now >= self._retire_at or self._snapshots.excess()):
            self._retire_at = now + min(RETIRE_EVERY, self._settings.retention_days * 86_400 / 4)
            for session in await self._snapshots.retire():
                await self.end(session, "expired")
