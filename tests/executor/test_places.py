"""Places: never too many, nobody skipped, nothing lost, whatever comes in what order."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from executor.errors import BackendFailed, Busy
from executor.events import Bus, Event, QuotaRefused
from executor.places import Places
from executor.tasks import Tasks
from executor.turns import RecentWaits, Turns
from tests.executor.crowd import let_loose, settled, soon

OWNERS = st.sampled_from("abc")


async def no_room() -> bool:
    return False


def places(
    capacity: int, make_room: Callable[[], Awaitable[bool]] = no_room, said: list[Event] | None = None
) -> Places:
    heard: list[Event] = [] if said is None else said
    return Places(capacity, make_room, tasks=Tasks(Bus()), publish=heard.append)


class TurnsMachine(RuleBasedStateMachine):
    """Turns beside a list that is searched from the front each time."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: Turns[int] = Turns()
        self.model: list[tuple[str, int]] = []
        self.round: list[str] = []
        self.number = 0

    @rule(owner=OWNERS)
    def add(self, owner: str) -> None:
        self.number += 1
        self.turns.add(owner, self.number)
        self.model.append((owner, self.number))
        if owner not in self.round:
            self.round.append(owner)

    @precondition(lambda self: self.model)
    @rule(named=st.booleans(), data=st.data())
    def take(self, named: bool, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(self.round)) if named else self.round[0]
        first = next(item for item in self.model if item[0] == owner)
        assert self.turns.take(owner if named else None) == first[1]
        self.model.remove(first)
        self.round.remove(owner)
        if any(item[0] == owner for item in self.model):
            self.round.append(owner)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        owner, number = data.draw(st.sampled_from(self.model))
        self.turns.remove(owner, number)
        self.model.remove((owner, number))
        if all(item[0] != owner for item in self.model):
            self.round.remove(owner)

    @invariant()
    def same(self) -> None:
        assert list(self.turns.owners()) == self.round
        assert len(self.turns) == len(self.model)
        assert bool(self.turns) == bool(self.model)


class PlacesMachine(RuleBasedStateMachine):
    """Places beside a brute-force model, on a loop of its own that is run until nothing more happens."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.idle = 0  # sessions that could be parked
        self.places = places(3, self.park)
        self.holders: list[str] = []
        self.queue: list[tuple[str, asyncio.Task[None]]] = []
        self.round: deque[str] = deque()

    async def park(self) -> bool:
        await asyncio.sleep(0)
        if not self.idle:
            return False
        self.idle -= 1
        self.places.release()
        return True

    def run(self) -> None:
        self.loop.run_until_complete(settled())

    def serve(self, free: int) -> None:
        """What the model says happens when `free` places are there."""
        for _ in range(free):
            if not self.round:
                return
            owner = self.round.popleft()
            first = next(item for item in self.queue if item[0] == owner)
            self.queue.remove(first)
            assert first[1].done(), "the one whose turn it was got nothing"
            first[1].result()
            self.holders.append(owner)
            if any(item[0] == owner for item in self.queue):
                self.round.append(owner)

    @rule(owner=OWNERS)
    def acquire(self, owner: str) -> None:
        task = self.loop.create_task(self.places.acquire(owner, soon(3600)))
        self.run()
        if len(self.holders) + self.idle < 3:
            assert task.done()
            self.holders.append(owner)
            return
        self.queue.append((owner, task))
        if owner not in self.round:
            self.round.append(owner)
        if self.idle_before():
            self.serve(1)

    def idle_before(self) -> bool:
        """Whether an idle session was parked for the newest waiter: then fewer are taken by idle ones than we count."""
        return any(task.done() for _, task in self.queue)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.holders.remove(data.draw(st.sampled_from(self.holders)))
        self.places.release()
        self.run()
        self.serve(1)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def becomes_idle(self, data: st.DataObject) -> None:
        self.holders.remove(data.draw(st.sampled_from(self.holders)))
        self.idle += 1
        self.loop.call_soon(self.places.look_again)
        self.run()
        if self.queue:
            assert self.idle == 0, "somebody waits while a session could be parked"
            self.serve(1)

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        owner, task = data.draw(st.sampled_from(self.queue))
        task.cancel()
        self.run()
        assert task.cancelled()
        self.queue.remove((owner, task))
        if all(item[0] != owner for item in self.queue):
            self.round.remove(owner)

    @precondition(lambda self: self.queue and self.holders)
    @rule(data=st.data())
    def give_up_in_the_moment_of_the_handover(self, data: st.DataObject) -> None:
        self.holders.remove(data.draw(st.sampled_from(self.holders)))
        self.places.release()  # whose turn it is has the place, and has not run yet
        owner = self.round[0]
        first = next(item for item in self.queue if item[0] == owner)
        first[1].cancel()
        self.run()
        assert first[1].cancelled()
        self.queue.remove(first)
        self.round.popleft()
        if any(item[0] == owner for item in self.queue):
            self.round.append(owner)
        self.serve(1)

    @invariant()
    def agrees(self) -> None:
        assert self.places.taken == len(self.holders) + self.idle <= 3
        assert self.places.waiting == len(self.queue)
        assert not any(task.done() for _, task in self.queue)
        assert not self.queue or self.places.taken == 3, "somebody waits beside a free place"

    def teardown(self) -> None:
        for _, task in self.queue:
            task.cancel()
        self.run()
        assert self.places.waiting == 0
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.run()
        self.loop.close()


TestTurns = TurnsMachine.TestCase
TestTurns.settings = hypothesis_settings(max_examples=100, stateful_step_count=40, deadline=None)
TestPlaces = PlacesMachine.TestCase
TestPlaces.settings = hypothesis_settings(max_examples=100, stateful_step_count=40, deadline=None)


async def test_owners_take_turns_however_many_wait_of_one() -> None:
    full = places(1)
    await full.acquire("first", soon())
    order: list[str] = []

    async def wait(owner: str) -> None:
        await full.acquire(owner, soon())
        order.append(owner)
        full.release()

    waiting = [asyncio.create_task(wait(owner)) for owner in "aaaabbc"]
    await settled()
    full.release()
    await asyncio.gather(*waiting)
    assert "".join(order) == "abcabaa"
    assert (full.taken, full.waiting) == (0, 0)


async def test_whoever_waits_too_long_hears_when_to_try_again_and_leaves_no_trace() -> None:
    said: list[Event] = []
    full = places(1, said=said)
    await full.acquire("a", soon())
    with pytest.raises(Busy, match=r"All 1 places .* within \d+ s\. Try again in \d+ s\."):
        await full.acquire("b", soon(0.05))
    assert [(event.owner, event.kind) for event in said if isinstance(event, QuotaRefused)] == [("b", "places")]
    full.release()
    assert (full.taken, full.waiting) == (0, 0)


async def test_a_session_that_becomes_idle_without_a_word_is_found_all_the_same() -> None:
    idle = False

    async def park() -> bool:
        if idle:
            full.release()
        return idle

    full = places(1, park)
    await full.acquire("a", soon())
    waiting = asyncio.create_task(full.acquire("b", soon()))
    await settled()
    idle = True
    async with asyncio.timeout(10):
        await waiting
    assert full.taken == 1


async def test_making_room_that_fails_keeps_nobody_from_the_next_place() -> None:
    async def fail() -> bool:
        raise BackendFailed("The disk is full.")

    full = places(1, fail)
    await full.acquire("a", soon())
    waiting = asyncio.create_task(full.acquire("b", soon()))
    await settled()
    full.release()
    async with asyncio.timeout(10):
        await waiting


async def test_a_place_that_nobody_holds_cannot_be_given_back() -> None:
    with pytest.raises(AssertionError):
        places(1).release()


async def test_a_crowd_with_cancels_deadlines_and_parking_never_holds_too_many_and_loses_nothing() -> None:
    chance = random.Random(7)
    idle = held = most = 0

    async def park() -> bool:
        nonlocal idle, held
        await asyncio.sleep(0.001 * chance.random())
        if not idle:
            return False
        idle -= 1
        held -= 1
        crowded.release()
        return True

    crowded = places(5, park)

    async def one(number: int) -> None:
        nonlocal idle, held, most
        await asyncio.sleep(0.05 * chance.random())
        await crowded.acquire(f"owner-{number % 7}", soon(chance.choice((0.0, 0.02, 20.0, 20.0))))
        held += 1
        most = max(most, held)
        try:
            await asyncio.sleep(0.002 * chance.random())
        finally:
            if chance.random() < 0.5:
                idle += 1
                crowded.look_again()
            else:
                held -= 1
                crowded.release()

    await let_loose(one, chance)
    assert most <= 5
    assert (crowded.taken, crowded.waiting) == (held, 0)


def test_the_advice_is_the_median_of_recent_waits_within_reason() -> None:
    waits = RecentWaits()
    assert waits.advice() == 1
    for seconds in (0.1, 12.2, 900.0):
        waits.note(seconds)
    assert waits.advice() == 13
    for _ in range(100):
        waits.note(9_000)
    assert waits.advice() == 300
