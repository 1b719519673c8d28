"""Keeper: opens sessions, finds them for their owners, wakes them, and has them parked when their time has come.

A session lives (it has processes) or is parked (it has a snapshot). Whoever needs it live says so by `use` and the
like: while that lasts it is not parked. With snapshots switched off, or no store to keep them in, sessions end instead.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from executor.backend import Backend, SessionSpec
from executor.errors import BackendFailed, Busy, ExecutorError, SandboxTooWeak
from executor.events import Bus, Fault, SessionOpened, SessionRestored
from executor.parking import Parking
from executor.quotas import Quotas
from executor.sandbox.report import SandboxReport
from executor.sessions import Session, SessionTable, history_of, new_id
from executor.settings import Settings
from executor.shares import Shares
from executor.tasks import Tasks

if TYPE_CHECKING:
    from executor.snapshots import Snapshots

SWEEP_EVERY = 5.0
"""Seconds between two looks for sessions that have been idle for long or died."""

RETIRE_EVERY = 600.0
"""Seconds between two looks for snapshots that are too old or too many."""

WAKE_SECONDS = 25.0
"""Seconds for which a call waits while its session is brought back, beside those in the queue for a place."""


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
        shares: Shares,
        bus: Bus,
        tasks: Tasks,
        parking: Parking,
    ) -> None:
        self.table = table
        self._settings = settings
        self._backend = backend
        self._sandbox = sandbox
        self._snapshots = snapshots
        self._quotas = quotas
        self._shares = shares
        self._bus = bus
        self._tasks = tasks
        self._parking = parking
        self._places = parking.places
        self._making: dict[tuple[str, str], asyncio.Task[Session]] = {}
        self._opening: Counter[str] = Counter()
        """Sessions of each owner that are being opened: not in the table yet, but the cap counts them."""
        self._retire_at = time.monotonic()
        self._closing = False
        self._sweeper = tasks.own(self._sweep_on())

    async def aclose(self, deadline: float) -> None:
        """Park every session within `deadline` seconds, and let none live any more."""
        self._closing = True
        self._sweeper.cancel()
        await self._parking.park_all(deadline)

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
            # first of all: who is refused has no session made for him that he never hears of
            await self._shares.room(owner, self._deadline())
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
        try:
            async with self._shares.use(session, self._deadline()):
                await self._have_live(session)
                yield session
        finally:
            if not session.busy:
                self._places.look_again()

    def _deadline(self) -> float:
        return time.monotonic() + self._settings.queue_wait

    async def _have_live(self, session: Session) -> None:
        staying = session.yielding or not session.life.locked()
        if session.ref is not None and staying and self._backend.alive(session.ref):
            return
        # a caller that goes away, or has waited for long, leaves a session that is whole, live or parked
        waking = self._tasks.own(self._wake(session))
        done, _ = await asyncio.wait((waking,), timeout=self._settings.queue_wait + WAKE_SECONDS)
        if not done:
            raise Busy(
                "The session is still being brought back: its state is large, or the store is slow. Nothing was run. "
                "Try again in 20 s."
            )
        waking.result()

    async def _wake(self, session: Session) -> None:
        async with session.life:
            if session.ref is not None:
                if self._backend.alive(session.ref):
                    return
                await self._parking.fall(session)
            self.table.find(session.id, session.owner, session.conversation)
            assert self._snapshots is not None, "only snapshots leave a session without processes"
            self._must_hold()
            began = time.monotonic()
            await self._admit_memory(session.owner)
            await self._places.acquire(session.owner, began + self._settings.queue_wait)
            try:
                self._must_be_open()
                ref = await self._backend.create(SessionSpec(session.id))
                try:
                    said = await self._snapshots.bring_back(session, ref)
                    self._must_be_open()
                except BaseException:
                    await self._backend.close(ref)
                    raise
            except BaseException:
                self._places.release()
                raise
            session.ref = ref
            session.touch()
            session.notices += [notice for notice in said.lasting if notice not in session.notices]
            session.returned = said.anew
            self._parking.restamp(session)
            self._parking.look_ahead()
            lost = sum(len(state.lost) for state in session.snapshot.states.values())
            self._bus.publish(
                SessionRestored(session_id=session.id, owner=session.owner, seconds=time.monotonic() - began, lost=lost)
            )

    # Opening

    async def create(self, owner: str, conversation: str | None, *, own: bool = False) -> Session:
        """A new session. Raises Busy, QuotaExceeded or SandboxTooWeak."""
        self._must_hold()
        self._quotas.admit_session(owner, self.table.count(owner) + self._opening[owner])
        self._quotas.admit_disk(owner)
        self._opening[owner] += 1
        try:
            return await self._open(owner, conversation, own=own)
        finally:
            self._opening[owner] -= 1
            if not self._opening[owner]:
                del self._opening[owner]

    async def _open(self, owner: str, conversation: str | None, *, own: bool) -> Session:
        await self._admit_memory(owner)
        began = time.monotonic()
        await self._places.acquire(owner, began + self._settings.queue_wait)
        try:
            self._must_be_open()
            session_id = new_id()
            ref = await self._backend.create(SessionSpec(session_id))
            if self._closing:
                await self._backend.close(ref)
            self._must_be_open()
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
        self._parking.look_ahead()
        self._bus.publish(SessionOpened(session_id=session.id, owner=owner, seconds=time.monotonic() - began))
        return session

    async def _admit_memory(self, owner: str) -> None:
        """Raises QuotaExceeded where the owner's live sessions take too much even when all idle ones are parked."""
        idle = [session for session in self.table.live() if session.owner == owner and not session.busy]
        idle.sort(key=lambda session: session.touched)
        for session in idle:
            if self._snapshots is None or not self._quotas.excess_memory(owner):
                break
            await self._parking.park(session, "room")
        self._quotas.admit_memory(owner)

    def _must_be_open(self) -> None:
        """While the server stops, places that become free are nobody's: whoever lived now would be lost."""
        if self._closing:
            raise BackendFailed("The server is stopping. Try again in a minute.")

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

    async def _is_dead(self, session: Session) -> bool:
        """Whether nothing is left of a session; what has died is cleared up."""
        if session.ref is not None and not self._backend.alive(session.ref):
            async with session.life:
                if session.ref is not None and not self._backend.alive(session.ref):
                    await self._parking.fall(session)
        return session.ended

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
            try:
                if not (session.busy or session.life.locked() or await self._is_dead(session)):
                    await self._parking.park_if_idle(session)
            except Exception as error:
                # the others are to be seen to all the same
                self._bus.publish(Fault(where="sweep", detail=f"session {session.id}: {error!r}"))
        if self._snapshots is not None and (now >= self._retire_at or self._snapshots.excess()):
            self._retire_at = now + min(RETIRE_EVERY, self._settings.retention_days * 86_400 / 4)
            await self._snapshots.retire(self._parking.expire)
