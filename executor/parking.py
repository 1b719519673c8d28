"""Parking: takes a session's processes away: saved for when it comes back, fallen unasked, or ended for good.

Every way gives back the session's place. A session that somebody uses (`Session.busy`) is never parked, unless the
server itself stops.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from executor.backend import Activity, Backend, SessionRef
from executor.cells import Cells
from executor.errors import ExecutorError, StoreFailed
from executor.events import Bus, Fault, SessionClosed, SessionParked
from executor.places import Places
from executor.quotas import Quotas
from executor.sessions import EndReason, Session, SessionTable
from executor.settings import Settings
from executor.tasks import Tasks

if TYPE_CHECKING:
    from executor.snapshots import Snapshots

LOOK_SECONDS = 2.0
"""Seconds in which a leader must have told what runs in its session."""

PARK_AT_ONCE = 4
MAKES_WAY_AFTER = 1.0
"""Seconds after which a session that is parked as the server stops makes way for others."""

TRY_AGAIN_AFTER = 0.2

LINGER = 0.2
"""Seconds for which the processes of a session that made room stay on: ending them takes tens of milliseconds of both
cores, and somebody waits for its place."""

CHOICE = 4
"""Sessions among which the one that makes room is chosen, while somebody waits for it."""

AHEAD_FROM = 8
"""Places from which on one of them is made ahead of need: of few, none can be spared."""
AHEAD_AFTER = 0.05
"""Seconds until then: whoever has just got the last one is served first."""
IN_USE_SECONDS = 600.0
"""Seconds since its last call for which a session counts as one that is in use."""

UNSAVED = 3
"""Failed tries in a row after which a session counts as one that cannot be saved."""

ParkReason = Literal["idle", "room", "shutdown"]


class Parking:
    """Parks and ends the sessions of one table. Without `snapshots`, whoever must make room is ended. `shared` are
    owners who stand for many people."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        *,
        table: SessionTable,
        snapshots: Snapshots | None,
        quotas: Quotas,
        shared: Collection[str],
        bus: Bus,
        tasks: Tasks,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._table = table
        self._snapshots = snapshots
        self._quotas = quotas
        self._shared = shared
        self._bus = bus
        self._tasks = tasks
        self.places = Places(settings.max_sessions, self.make_room, tasks=tasks, publish=bus.publish)
        self._ahead: asyncio.Task[None] | None = None

    async def make_room(self) -> bool:
        """Park a session, or end it where nothing can be parked; False where all are at work.

        It is the one that is idle longest, unless it must be saved first, and one of the next few need not: somebody
        waits. One whose variables no snapshot can keep is taken only where there is no other, and so is one in which
        processes run on that its code has started: parking ends them.
        """
        idle = self._idle()
        working: list[Session] = []
        if await self._park_one(idle, working, choice=self._choice()):
            return True
        for session in working:
            if await self._try_place(session):
                return True
        for session in idle:
            if await self._give_up(session):
                return True
        return False

    def _choice(self) -> int:
        """Of a few places all would be held by those that are passed over."""
        return CHOICE if self._snapshots is not None and self.places.capacity >= AHEAD_FROM else 1

    def look_ahead(self) -> None:
        """A session has come to live. Where more are in use than there are places, the next place is made before it is
        needed: whoever comes next need not wait until another session has been saved."""
        under_way = self._ahead is not None and not self._ahead.done()
        if self._snapshots is not None and self.places.capacity >= AHEAD_FROM and not under_way:
            self._ahead = self._tasks.own(self._make_ahead())

    async def _make_ahead(self) -> None:
        await asyncio.sleep(AHEAD_AFTER)
        places = self.places
        if places.taken >= places.capacity and not places.waiting and self._is_crowded():
            await self._park_one(self._idle(), [])

    def _is_crowded(self) -> bool:
        since = time.monotonic() - IN_USE_SECONDS
        return sum(session.touched > since for session in self._table.all()) > self.places.capacity

    def _idle(self) -> list[Session]:
        """Those that could be parked, who is to go first in front."""
        idle = [session for session in self._table.live() if not session.busy and not session.life.locked()]
        idle.sort(key=lambda s: (any(state.problem for state in s.snapshot.states.values()), s.touched))
        return idle

    async def _park_one(self, idle: list[Session], working: list[Session], *, choice: int = 1) -> bool:
        """Park the first of `idle` that nothing runs on in; the others before it are added to `working`. With a
        `choice` of so many, one of them that is as it is saved comes before those that must be saved yet."""
        left = deque(idle)
        while left:
            chosen: deque[Session] = deque()
            while left and len(chosen) < choice:
                session = left.popleft()
                activity = await self._look(session)
                if activity.background:
                    working.append(session)
                elif choice > 1 and self._may_stand(session) and activity.rests:
                    chosen.appendleft(session)
                    break
                else:
                    chosen.append(session)
            for session in chosen:
                if await self._try_place(session):
                    return True
        return False

    async def _try_place(self, session: Session) -> bool:
        try:
            return await self._take_place(session)
        except Exception as error:
            # the next one may be well
            self._bus.publish(Fault(where="park", detail=f"session {session.id} could not make room: {error!r}"))
            return False

    def _may_stand(self, session: Session) -> bool:
        assert self._snapshots is not None, "without them nobody is asked to choose"
        return self._snapshots.may_stand(session) and not any(s.problem for s in session.snapshot.states.values())

    async def park_if_idle(self, session: Session) -> None:
        """Park, or else end, a session that nobody has used for `PARK_AFTER` and in which nothing runs on."""
        # looked at twice: it may have come into use while its leader was asked
        if self._is_idle(session) and not (await self._look(session)).background and self._is_idle(session):
            if self._snapshots is None:
                await self.end(session, "expired")
            else:
                await self.park(session, "idle")

    async def _take_place(self, session: Session) -> bool:
        """Park a session for its place, or end it where nothing can be parked; False where it is in use by now."""
        if session.ref is None or session.busy or session.life.locked():
            return False
        if self._snapshots is None:
            await self.end(session, "evicted")
            return True
        return await self.park(session, "room")

    def _is_idle(self, session: Session) -> bool:
        """Whether nobody has used a session for `PARK_AFTER`."""
        unused = time.monotonic() - session.touched > self._settings.park_after
        return unused and not session.busy and not session.life.locked()

    async def _look(self, session: Session) -> Activity:
        """What goes on in a session between its cells."""
        if session.ref is not None:
            with suppress(ExecutorError, TimeoutError):  # what is wrong with it turns up when it is parked
                async with asyncio.timeout(LOOK_SECONDS):
                    return await self._backend.activity(session.ref)
        return Activity(background=0, rests=False)

    async def _give_up(self, session: Session) -> bool:
        """End the processes of a session that cannot be saved, and that nobody has used for `PARK_AFTER`: else whoever
        sees to it that his cannot be saved would hold its place for ever. Its owner is told."""
        if session.snapshot.failures < UNSAVED or not self._is_idle(session):
            return False
        async with session.life:
            if session.ref is None or session.busy:
                return False
            await self.fall(session)
            return True

    async def park(self, session: Session, reason: ParkReason, *, force: bool = False) -> bool:
        """Save a session and end its processes; False where it is wanted meanwhile, or cannot be saved."""
        assert self._snapshots is not None
        async with session.life:
            if session.ref is None or session.ended or (session.busy and not force):
                return False
            if not self._backend.alive(session.ref):
                await self.fall(session)
                return True
            touched = session.touched
            snapshot = session.snapshot
            session.yielding = not force
            try:
                async with snapshot.lock:  # what is being saved now must be seen through, or it ends with the processes
                    pass
                as_saved = await self._is_as_saved(session)
                if not as_saved and not await self._snapshots.take(session, parked=True, wait=force):
                    return False
            finally:
                session.yielding = False
            # nothing is awaited from here to where its processes are taken from it
            if not force and (session.busy or session.touched != touched):
                snapshot.clean = False
                self.restamp(session)
                return False
            if session not in self._table:  # it was closed meanwhile, and that gave its place back
                return True
            snapshot.clean = snapshot.clean or as_saved
            await self._lay_down(session, reason)
            return True

    async def _is_as_saved(self, session: Session) -> bool:
        """Whether a session is as its snapshot has it, so that nothing need be saved to park it."""
        assert self._snapshots is not None
        snapshots = self._snapshots
        if not snapshots.may_stand(session):
            return False
        return (await self._look(session)).rests and snapshots.may_stand(session)

    async def fall(self, session: Session) -> None:
        """A session's processes are gone, unasked: what is left of it is its snapshot, if it has one."""
        snapshot = session.snapshot
        if self._snapshots is None or snapshot.taken_at is None:
            self._quotas.forget(session.owner, session.id)
            if self._table.remove(session, "failed"):
                self._say_closed(session, "failed")
            await self._close(session)
            return
        snapshot.clean = snapshot.clean and snapshot.dirty_since is None
        snapshot.dirty_since = None
        await self._lay_down(session, "failed")

    async def _lay_down(self, session: Session, reason: ParkReason | Literal["failed"]) -> None:
        """End the processes of a session; for all others it is parked before they have ended."""
        ref = self._release(session)
        self._quotas.parked(session.owner, session.id)
        session.lie_down()
        self._bus.publish(SessionParked(session_id=session.id, owner=session.owner, reason=reason))
        self.restamp(session)
        if ref is not None:
            # its next life need not wait for the end of this one, and whoever got its place is served first
            session.leaving = self._tasks.own(self._backend.close(ref, linger=LINGER if reason == "room" else 0.0))
            if reason == "shutdown":
                await session.leaving

    def restamp(self, session: Session) -> None:
        """Have the store know whether a session lives; nobody waits for that."""
        if self._snapshots is not None:
            self._tasks.own(self._snapshots.restamp(session))

    async def _close(self, session: Session) -> None:
        if (ref := self._release(session)) is not None:
            await self._backend.close(ref)

    def _release(self, session: Session) -> SessionRef | None:
        """Take a session's processes from it, and give its place to others: nobody need wait for the tens of
        milliseconds in which they end."""
        ref, session.ref = session.ref, None
        if ref is not None:
            self.places.release()
        return ref

    async def park_all(self, deadline: float) -> None:
        """Park every session within `deadline` seconds, and name those that it did not suffice for."""
        if (snapshots := self._snapshots) is not None:
            # one owner's states that take long must not take everybody's time
            few = Cells(PARK_AT_ONCE, PARK_AT_ONCE, shared=self._shared, long_after=MAKES_WAY_AFTER)

            async def park(session: Session) -> None:
                while session.ref is not None:
                    async with few.turn(session.owner, math.inf):
                        parked = await self.park(session, "shutdown", force=True)
                    if not parked:
                        # its leader may be at a save that was given up, or the store had a hiccup
                        await asyncio.sleep(TRY_AGAIN_AFTER)
                await snapshots.restamp(session)

            # those first that are saved already, which is quick
            order = sorted(self._table.live(), key=lambda session: session.snapshot.dirty_since is not None)
            tasks = {self._tasks.own(park(session)): session for session in order}
            if tasks:
                _, late = await asyncio.wait(tasks, timeout=deadline)
                for task in late:
                    task.cancel()
            for session in self._table.live():
                self._bus.publish(
                    Fault(
                        where="shutdown",
                        detail=f"session {session.id} was not saved within {deadline:g} s: it is as of its last "
                        "snapshot, or lost where it had none",
                    )
                )
        for session in self._table.live():
            self._say_closed(session, "shutdown")

    # Ending

    async def end(self, session: Session, reason: EndReason) -> None:
        """End a session with all its processes, variables, files and snapshots."""
        if not self._table.remove(session, reason):
            return
        self._say_closed(session, reason)
        self._quotas.forget(session.owner, session.id)
        await asyncio.shield(self._tasks.own(self._clear(session)))

    def expire(self, session: Session) -> bool:
        """End a parked session whose snapshot is about to be deleted; False where it is in use."""
        if session.ref is not None or session.busy or session.life.locked():
            return False
        if self._table.remove(session, "expired"):
            self._say_closed(session, "expired")
            self._quotas.forget(session.owner, session.id)
        return True

    async def _clear(self, session: Session) -> None:
        # whoever saves or wakes it now gives up when its processes go
        await self._close(session)
        async with session.life:
            await self._close(session)
            if session.leaving is not None:
                await asyncio.wait((session.leaving,))
            if self._snapshots is not None:
                try:
                    await self._snapshots.delete(session)
                except StoreFailed as error:
                    # it is gone for every call, and deleting goes on
                    self._bus.publish(Fault(where="store", detail=str(error)))

    def _say_closed(self, session: Session, reason: EndReason) -> None:
        age = time.time() - session.created_at
        self._bus.publish(SessionClosed(session_id=session.id, owner=session.owner, reason=reason, age=max(0.0, age)))
