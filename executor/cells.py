"""Cells: how many executions may be under way at once, over all owners and of each, and whose turn is next.

How the runner uses it, once the execution has its session's turn, so that what waits for its own session holds up
nobody else:

    cells = Cells(settings.concurrent_cells, settings.owner_concurrent, shared=shared, publish=bus.publish)
    async with cells.turn(session.owner, time.monotonic() + settings.queue_wait):   # Busy: say so, nothing was run
        await self._carry_out(...)

What the policy blocks needs no turn. Cells that run for long must not starve short ones: one that has been under way
for `LONG_AFTER` seconds makes way. It runs on, and counts as long; as many long ones as short ones may run beside
them. Only where those are all taken does a long one keep its place. So at most twice `limit` run. Of those who wait,
the owner with the fewest cells under way is served, long ones counted, and among equals the one whose turn it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass

from executor.errors import Busy
from executor.events import Event, QuotaRefused
from executor.turns import Clock, RecentWaits, Turns

LONG_AFTER = 10.0
"""Seconds after which a cell makes way for short ones."""


@dataclass(eq=False, slots=True)
class _Cell:
    owner: str
    granted: asyncio.Future[None]
    long: bool = False
    timer: asyncio.TimerHandle | None = None
    since: float = 0.0


class Cells:
    """At most `limit` short cells and as many long ones, and of one owner `per_owner`; 0 is no limit.

    `shared` are owners who stand for many people: no limit of their own holds for them. For one event loop, whose own
    clock `clock` must be.
    """

    def __init__(
        self,
        limit: int,
        per_owner: int,
        *,
        shared: Collection[str] = (),
        publish: Callable[[Event], None] = lambda _: None,
        clock: Clock = time.monotonic,
        long_after: float = LONG_AFTER,
    ) -> None:
        self._limit = limit
        self._per_owner = per_owner
        self._shared = frozenset(shared)
        self._publish = publish
        self._clock = clock
        self._long_after = long_after
        self._short = 0
        self._long = 0
        self._overdue: list[_Cell] = []
        """Short by count and long by time: they found all long places taken. Oldest first."""
        self._of: Counter[str] = Counter()
        self._turns: Turns[_Cell] = Turns()
        self._waits = RecentWaits()

    @property
    def under_way(self) -> tuple[int, int]:
        """Short and long ones."""
        return self._short, self._long

    @property
    def waiting(self) -> int:
        """Cells in the queue."""
        return len(self._turns)

    def of(self, owner: str) -> int:
        """Cells of an owner under way."""
        return self._of[owner]

    @contextlib.asynccontextmanager
    async def turn(self, owner: str, deadline: float) -> AsyncIterator[None]:
        """While inside, a cell of `owner` is under way. Waits for it until `deadline`, a moment of the clock.

        Raises Busy. Whoever is cancelled holds nothing and waits no more.
        """
        cell = await self._begin(owner, deadline)
        try:
            yield
        finally:
            self._end(cell)

    async def _begin(self, owner: str, deadline: float) -> _Cell:
        cell = _Cell(owner, asyncio.get_running_loop().create_future())
        began = self._clock()
        self._turns.add(owner, cell)
        self._serve()
        if cell.granted.done():
            return cell
        try:
            await asyncio.wait((cell.granted,), timeout=max(0.0, deadline - began))
        except asyncio.CancelledError:
            if cell.granted.done():
                self._end(cell)
            else:
                self._turns.remove(owner, cell)
            raise
        self._waits.note(self._clock() - began)
        if cell.granted.done():
            return cell
        self._turns.remove(owner, cell)
        self._publish(QuotaRefused(owner=owner, kind="concurrent"))
        raise Busy(self._sentence(owner, self._clock() - began))

    def _end(self, cell: _Cell) -> None:
        if cell.timer is not None:
            cell.timer.cancel()
        self._of[cell.owner] -= 1
        if not self._of[cell.owner]:
            del self._of[cell.owner]
        if cell.long:
            self._long -= 1
            if self._overdue:
                self._make_way(self._overdue.pop(0))
        else:
            self._short -= 1
            if cell in self._overdue:
                self._overdue.remove(cell)
        self._serve()

    def _serve(self) -> None:
        while self._turns and (not self._limit or self._short < self._limit):
            owners = [owner for owner in self._turns.owners() if not self._full(owner)]
            if not owners:
                return
            # `min` takes the first of equals, and `owners` is in the order of the round
            cell = self._turns.take(min(owners, key=self._of.__getitem__))
            self._short += 1
            self._of[cell.owner] += 1
            cell.since = self._clock()
            if self._limit:
                cell.timer = asyncio.get_running_loop().call_later(self._long_after, self._grown_long, cell)
            cell.granted.set_result(None)

    def _grown_long(self, cell: _Cell) -> None:
        cell.timer = None
        if self._long < self._limit:
            self._make_way(cell)
            self._serve()
        else:
            self._overdue.append(cell)

    def _make_way(self, cell: _Cell) -> None:
        cell.long = True
        self._short -= 1
        self._long += 1

    def _full(self, owner: str) -> bool:
        return bool(self._per_owner) and self._of[owner] >= self._per_owner and owner not in self._shared

    def _sentence(self, owner: str, waited: float) -> str:
        again = f"Try again in {self._waits.advice()} s"
        if self._full(owner):
            return (
                f"{self._of[owner]} cells of this user are under way, and {self._per_owner} may be at once; none "
                f"ended within {waited:.0f} s, so this one was not begun. {again}, wait for one with "
                "get_execution_result, or stop one with interrupt_execution."
            )
        others = f" {self.waiting} more wait." if self.waiting else ""
        return (
            f"{self._short + self._long} cells are under way on this machine, and no turn came within {waited:.0f} s, "
            f"so this one was not begun.{others} {again}."
        )
