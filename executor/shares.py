"""Shares: how many sessions of one owner may be at work at once, so that the others' calls find places.

A session that is at work (`Session.busy`) cannot be parked, and so holds its place for as long as its code waits, its
code runs, or a file is sent. How the keeper uses it:

    shares = Shares(share_of(settings), shared=shared, publish=bus.publish)
    async with shares.use(session, time.monotonic() + settings.queue_wait):   # Busy: nothing was done
        ...
    shares.rested(session.owner)      # a session of the owner may have come to rest

Calls to a session that is at work already wait for nothing here: it holds its place anyway.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Collection

from executor.errors import Busy
from executor.events import Event, QuotaRefused
from executor.sessions import Session
from executor.settings import Settings
from executor.turns import Clock, RecentWaits


def share_of(settings: Settings) -> int:
    """Sessions of one owner that may be at work at once; 0 is no limit.

    As many as he may run cells, or half the places where that is more: files are sent beside the cells. But never all
    of them where there are several. Who lifts the cap on cells wants none here either.
    """
    places, cells = settings.max_sessions, settings.owner_concurrent
    return max(1, min(max(cells, places // 2), places - 1)) if cells else 0


class Shares:
    """At most `limit` sessions of an owner at work; 0 is no limit. First come, first served.

    `shared` are owners who stand for many people: no limit holds for them. For one event loop, whose own clock `clock`
    must be.
    """

    def __init__(
        self,
        limit: int,
        *,
        shared: Collection[str] = (),
        publish: Callable[[Event], None] = lambda _: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._limit = limit
        self._shared = frozenset(shared)
        self._publish = publish
        self._clock = clock
        self._at_work: dict[str, dict[str, Session]] = {}
        """By owner and id: those that were at work when they were last looked at."""
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._waits = RecentWaits()

    @contextlib.asynccontextmanager
    async def use(self, session: Session, deadline: float) -> AsyncIterator[None]:
        """While inside, `session` counts as used (`Session.using`). Waits for the owner's share until `deadline`, a
        moment of the clock. Raises Busy."""
        await self.room(session.owner, deadline, session)
        # in the same step of the loop, so that nobody else finds the same room
        session.using += 1
        if self._is_bound(session.owner):
            self._at_work.setdefault(session.owner, {})[session.id] = session
            self._wake(session.owner)  # others may wait for this very session
        try:
            yield
        finally:
            session.using -= 1
            self.rested(session.owner)

    async def room(self, owner: str, deadline: float, session: Session | None = None) -> None:
        """Wait until one more session of the owner may be at work, `session` where it is known which. Raises Busy."""
        line = self._waiting.get(owner, [])
        if not line and self._may_work(owner, session):
            return
        if session is not None and session.busy:
            return  # past those who wait: it takes nothing from them
        began = self._clock()
        turn = asyncio.Event()
        line.append(turn)
        self._waiting[owner] = line
        try:
            while not self._may_work(owner, session):
                turn.clear()
                try:
                    async with asyncio.timeout(max(0.0, deadline - self._clock())):
                        await turn.wait()
                except TimeoutError:
                    self._publish(QuotaRefused(owner=owner, kind="concurrent"))
                    raise Busy(self._sentence(self._clock() - began)) from None
        finally:
            self._waits.note(self._clock() - began)
            line.remove(turn)
            if not line:
                del self._waiting[owner]

    def rested(self, owner: str) -> None:
        """Something has ended in a session of the owner: whoever waits looks again, who came first at first."""
        self._look(owner)
        self._wake(owner)

    def _wake(self, owner: str) -> None:
        for turn in self._waiting.get(owner, ()):
            turn.set()

    def _may_work(self, owner: str, session: Session | None) -> bool:
        if not self._is_bound(owner) or (session is not None and session.busy):
            return True
        return self._look(owner) < self._limit

    def _is_bound(self, owner: str) -> bool:
        return bool(self._limit) and owner not in self._shared

    def _look(self, owner: str) -> int:
        """How many sessions of the owner are at work now."""
        busy = {key: session for key, session in self._at_work.get(owner, {}).items() if session.busy}
        if busy:
            self._at_work[owner] = busy
        else:
            self._at_work.pop(owner, None)
        return len(busy)

    def _sentence(self, waited: float) -> str:
        sessions = "1 session" if self._limit == 1 else f"{self._limit} sessions"
        return (
            f"{sessions} of this user at work is all that may be at once, so that others find a place; none came to "
            f"rest within {waited:.0f} s, so nothing was done. Try again in {self._waits.advice()} s, wait for one "
            "with get_execution_result, or stop one with interrupt_execution."
        )
