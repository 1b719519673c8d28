"""When sessions are saved: nobody's work keeps another one's from being saved."""

import asyncio

import pytest

from executor import Executor
from executor.events import Fault, SessionParked, SnapshotTaken
from tests.executor.conftest import A, run
from tests.executor.crowd import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_cells_that_run_for_long_keep_nobody_else_from_being_saved(settings):
    events = []
    async with Executor(settings(snapshot_every=1.0, snapshot_after=3600.0)) as executor:
        executor.bus.subscribe(events.append)
        for owner in "abc":
            await run(executor, "x = 1", owner=owner, conversation="1")
        await asyncio.sleep(0.6)
        # when these sessions are due, their cells have only begun
        working = [
            asyncio.create_task(run(executor, "import time; time.sleep(25)", owner=owner, conversation="1"))
            for owner in "abc"
        ]
        other = await run(executor, "x = 1", owner="other", conversation="1")
        await until(lambda: any(e.session_id == other.session_id for e in events if isinstance(e, SnapshotTaken)))
        assert not any(task.done() for task in working)
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)


FORKS = """
import os
forks = []
os.register_at_fork(after_in_child=lambda: forks.append(os.getpid()))
class Counts:
    def __reduce__(self):
        with open("forks.txt", "w") as file:
            file.write(str(len(forks)))
        return int, ()
counts = Counts()
"""


async def test_a_worker_is_let_copy_itself_by_one_fork(settings):
    events = []
    async with Executor(settings()) as executor:
        executor.bus.subscribe(events.append)
        await run(executor, FORKS, **A)
        await until(lambda: any(isinstance(event, SnapshotTaken) for event in events))
        second = await run(executor, "print(open('forks.txt').read(), forks)", **A)
    assert second.stdout == "1 []\n"


LARGE = """
class Slow:
    def __reduce__(self):
        import time
        open("held", "w").close()
        time.sleep(30)
        return int, ()
import numpy as np
x, slow, mine = 5, Slow(), np.ones(14_000_000)
"""
CHANGES = "import os, time; held = os.path.exists('held'); mine += 1; time.sleep(4); print(x, mine[0], held)"


@pytest.mark.parametrize("threads", ["", "import threading; threading.Thread(target=threading.Event().wait).start()\n"])
async def test_memory_that_a_copy_keeps_from_being_free_costs_the_save_and_nothing_else(settings, threads):
    events = []
    async with Executor(settings(session_memory_mb=200, snapshot_after=0.2)) as executor:
        executor.bus.subscribe(events.append)
        first = await run(executor, threads + LARGE, **A)
        await until(lambda: list(executor._backend._sessions.glob("*/held")))
        # what the copy holds and what is new are too much together
        result = await run(executor, CHANGES, **A)
        assert (first.success, result.stdout, result.status) == (True, "5 2.0 True\n", "ok"), result
        after = await run(executor, "print(x, mine[0])", **A)
        assert (after.stdout, after.notices) == ("5 2.0\n", ()), after
        # the save was given up while its copy slept
        await until(lambda: any(isinstance(event, SnapshotTaken) for event in events), 40)
        assert next(event for event in events if isinstance(event, SnapshotTaken)).seconds < 20


SLOW = """
class Slow:
    def __reduce__(self):
        import time
        time.sleep(18)
        return int, ()
slow = Slow()
"""


async def test_states_that_take_long_to_write_keep_nobody_else_from_being_saved(settings):
    events = []
    async with Executor(settings()) as executor:
        executor.bus.subscribe(events.append)
        for number in "1234567":
            await run(executor, SLOW, owner="slow", conversation=number)
        await asyncio.sleep(3)  # those that are saved first have made way by now, and each takes a second more
        await run(executor, "x = 1", owner="other", conversation="1")
        before = len(events)
        await until(lambda: any(e.owner == "other" for e in events if isinstance(e, SnapshotTaken)))
        slow = [e for e in events[before:] if isinstance(e, SnapshotTaken) and e.owner == "slow"]
        assert len(slow) <= 4, "it waited for its turn"


async def test_when_the_server_stops_one_owners_slow_states_do_not_cost_others_theirs(settings):
    chosen = settings(snapshot_after=3600.0, snapshot_every=3600.0)
    events = []
    async with Executor(chosen) as executor:
        executor.bus.subscribe(events.append)
        for number in range(12):
            await run(executor, SLOW, owner="slow", conversation=f"{number}")
        others = {(await run(executor, "x = 1", owner=owner, conversation="1")).session_id for owner in "abc"}
    parked = {event.session_id for event in events if isinstance(event, SessionParked)}
    assert others <= parked
    unsaved = [event.detail for event in events if isinstance(event, Fault) and "was not saved" in event.detail]
    assert unsaved and len(unsaved) + len(parked) == 15
