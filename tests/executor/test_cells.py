"""Cells: no more under way than may be, long ones make way, and every owner gets its turn."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

import pytest

from executor.cells import Cells
from executor.errors import Busy
from executor.events import Event, QuotaRefused
from tests.executor.crowd import let_loose, settled, soon, until


class Running:
    """A cell that goes on until it is told to end."""

    def __init__(self, cells: Cells, owner: str, deadline: float | None = None) -> None:
        self.begun = False
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self._run(cells, owner, soon() if deadline is None else deadline))

    async def _run(self, cells: Cells, owner: str, deadline: float) -> None:
        async with cells.turn(owner, deadline):
            self.begun = True
            await self.stop.wait()

    async def end(self) -> None:
        self.stop.set()
        await self.task
        await settled()


async def test_one_owners_crowd_leaves_the_next_turn_to_another_one() -> None:
    cells = Cells(2, 0)
    crowd = [Running(cells, "a") for _ in range(10)]
    other = Running(cells, "b")
    await settled()
    assert [cell.begun for cell in crowd] == [True, True, *[False] * 8]
    await crowd[0].end()
    assert other.begun and not crowd[2].begun
    for cell in (*crowd, other):
        cell.stop.set()
    await asyncio.gather(*(cell.task for cell in (*crowd, other)))
    assert (cells.under_way, cells.waiting, cells.of("a")) == ((0, 0), 0, 0)


async def test_an_owner_at_its_cap_waits_and_holds_nobody_up() -> None:
    said: list[Event] = []
    cells = Cells(10, 1, publish=said.append)
    first, second, other = Running(cells, "a"), Running(cells, "a", soon(0.05)), Running(cells, "b")
    await settled()
    assert (first.begun, second.begun, other.begun) == (True, False, True)
    with pytest.raises(
        Busy, match=r"1 cells of this user .* 1 may be at once.*Try again in \d+ s.*interrupt_execution"
    ):
        await second.task
    assert [(event.owner, event.kind) for event in said if isinstance(event, QuotaRefused)] == [("a", "concurrent")]
    await first.end()
    await other.end()


async def test_an_owner_who_stands_for_many_has_no_cap_of_its_own() -> None:
    cells = Cells(10, 1, shared=("anonymous",))
    many = [Running(cells, "anonymous") for _ in range(5)]
    await settled()
    assert all(cell.begun for cell in many)
    for cell in many:
        await cell.end()


async def test_long_cells_make_way_for_short_ones_and_only_so_many() -> None:
    cells = Cells(1, 0, long_after=0.05)
    long = Running(cells, "a")
    await settled()
    late = Running(cells, "b")
    await until(lambda: late.begun)  # by then the first one counts as long
    assert cells.under_way == (1, 1)
    waits = Running(cells, "c")
    await asyncio.sleep(0.2)
    assert not waits.begun, "two are under way, none of them can make way"
    await long.end()  # its place as a long one goes to `late`
    assert waits.begun and cells.under_way == (1, 1)
    await late.end()
    await waits.end()
    assert cells.under_way == (0, 0)


async def test_without_a_limit_nobody_waits() -> None:
    cells = Cells(0, 0, long_after=0.01)
    many = [Running(cells, "a") for _ in range(50)]
    await asyncio.sleep(0.05)
    assert all(cell.begun for cell in many) and cells.under_way == (50, 0)
    for cell in many:
        cell.stop.set()
    await asyncio.gather(*(cell.task for cell in many))
    assert cells.under_way == (0, 0)


async def test_a_turn_that_comes_in_the_moment_of_a_cancel_goes_on_to_the_next() -> None:
    cells = Cells(1, 0)
    first, second, third = (Running(cells, owner) for owner in "abc")
    await settled()
    first.stop.set()
    with contextlib.suppress(asyncio.CancelledError):
        await first.task
    second.task.cancel()  # has its turn, and has not run yet
    await settled()
    assert third.begun and cells.of("b") == 0
    await third.end()


async def test_a_full_machine_says_so_and_when_to_try_again() -> None:
    cells = Cells(1, 0)
    first, second = Running(cells, "a"), Running(cells, "b", soon(0.05))
    with pytest.raises(Busy, match=r"1 cells are under way on this machine.* was not begun\. Try again in \d+ s\."):
        await second.task
    await first.end()


async def test_a_crowd_with_cancels_and_deadlines_keeps_every_limit_and_ends_empty() -> None:
    chance = random.Random(11)
    cells = Cells(3, 2, long_after=0.004)
    under_way: Counter[str] = Counter()
    most = most_of_one = 0

    async def one(number: int) -> None:
        nonlocal most, most_of_one
        owner = f"owner-{number % 5}"
        await asyncio.sleep(0.1 * chance.random())
        async with cells.turn(owner, soon(chance.choice((0.0, 0.05, 30.0, 30.0)))):
            under_way[owner] += 1
            most = max(most, under_way.total())
            most_of_one = max(most_of_one, under_way[owner])
            short, long = cells.under_way
            assert short <= 3 and long <= 3 and short + long >= under_way.total()
            try:
                await asyncio.sleep(0.012 * chance.random())
            finally:
                under_way[owner] -= 1

    await let_loose(one, chance)
    assert most <= 6 and most_of_one <= 2
    assert (cells.under_way, cells.waiting) == ((0, 0), 0)
