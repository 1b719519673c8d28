"""Places: how many sessions may live at once, and who gets the next place.

How parking, which holds it, and the keeper use it:

    places = Places(settings.max_sessions, self.make_room, tasks=tasks, publish=bus.publish)
    await places.acquire(owner, time.monotonic() + settings.queue_wait)   # before a session is made or restored
    places.release()                  # once for each acquire: it was parked, closed or died, or was not made after all
    places.look_again()               # a session became idle (its last run ended), so that now one could be parked

`make_room() -> bool` parks the session that can best be spared, which ends with `release()` as every end of a session
does, and says whether there was one. It returns True only after that `release()`. Sessions that are being parked must
not be picked twice: up to four are parked at a time. A session that was only found again after a restart, parked, holds
no place.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from executor.errors import Busy, ExecutorError
from executor.events import Event, QuotaRefused
from executor.tasks import Tasks
from executor.turns import Clock, RecentWaits, Turns

MakeRoom = Callable[[], Awaitable[bool]]

_AT_ONCE = 4
_ROOM_SECONDS = 30.0
"""Seconds after which making room counts as failed."""
_LOOK_EVERY = 0.5
"""Seconds between two looks for room where there was none: a call of `look_again` that got lost costs no more."""

_Waiter = asyncio.Future[None]


class Places:
    """At most `capacity` places. One that becomes free goes to the next owner in turn, and to nobody past the queue.

    For one event loop. `clock` must be the one by which the loop counts.
    """

    def __init__(
        self,
        capacity: int,
        make_room: MakeRoom,
        *,
        tasks: Tasks,
        publish: Callable[[Event], None] = lambda _: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self.capacity = capacity
        self._make_room = make_room
        self._tasks = tasks
        self._publish = publish
        self._clock = clock
        self._taken = 0
        self._turns: Turns[_Waiter] = Turns()
        self._waits = RecentWaits()
        self._making = 0
        self._look: asyncio.TimerHandle | None = None

    @property
    def taken(self) -> int:
        """Places that are taken, those handed over to a waiter that has not run yet among them."""
        return self._taken

    @property
    def waiting(self) -> int:
        """Callers in the queue."""
        return len(self._turns)

    async def acquire(self, owner: str, deadline: float) -> None:
        """Take a place, making room or waiting for one until `deadline`, a moment of the clock. Raises Busy.

        Whoever is cancelled here holds no place and waits no more.
        """
        if self._taken < self.capacity and not self._turns:
            self._taken += 1
            return
        began = self._clock()
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        self._turns.add(owner, waiter)
        self._seek()
        try:
            await asyncio.wait((waiter,), timeout=max(0.0, deadline - began))
        except asyncio.CancelledError:
            if waiter.done():
                self.release()
            else:
                self._turns.remove(owner, waiter)
            raise
        self._waits.note(self._clock() - began)
        if waiter.done():
            return
        self._turns.remove(owner, waiter)
        self._publish(QuotaRefused(owner=owner, kind="places"))
        raise Busy(self._sentence(self._clock() - began))

    def release(self) -> None:
        """Give a place back: to whoever is next, else to all."""
        if self._taken <= 0:
            raise AssertionError("a place was given back that nobody held")
        self._taken -= 1
        while self._turns and self._taken < self.capacity:
            self._taken += 1
            self._turns.take().set_result(None)

    def look_again(self) -> None:
        """There may be a session now that can make room: ask, if anybody waits."""
        self._seek()

    def _seek(self) -> None:
        """Have as many make room as wait, a few at a time."""
        if self._look is not None:
            self._look.cancel()
            self._look = None
        while self._making < min(len(self._turns), _AT_ONCE):
            self._making += 1
            self._tasks.own(self._make())

    async def _make(self) -> None:
        made = False
        try:
            # of those asked for at the same moment, an earlier one may have done for all
            if self._turns:
                async with asyncio.timeout(_ROOM_SECONDS):
                    made = await self._make_room()
        except (ExecutorError, TimeoutError):
            made = False  # whoever makes room says himself why he could not
        finally:
            self._making -= 1
            if made:
                self._seek()
            elif self._turns and self._look is None:
                self._look = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._seek)

    def _sentence(self, waited: float) -> str:
        others = f" {self.waiting} more wait." if self.waiting else ""
        return (
            f"All {self.capacity} places for live sessions are taken, code runs in every one, and none became free "
            f"within {waited:.0f} s.{others} Try again in {self._waits.advice()} s."
        )
