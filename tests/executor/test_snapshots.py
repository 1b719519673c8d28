"""When sessions are saved: nobody's work keeps another one's from being saved."""

import asyncio

import pytest

from executor import Executor
from executor.events import SnapshotTaken
from tests.executor.conftest import run
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
        slow = [await run(executor, SLOW, owner="slow", conversation=number) for number in "12"]
        await asyncio.sleep(1)
        other = await run(executor, "x = 1", owner="other", conversation="1")
        await until(
            lambda: any(e.session_id == other.session_id for e in events if isinstance(e, SnapshotTaken)), seconds=10
        )
        for number, result in zip("12", slow, strict=True):
            assert not any(e.session_id == result.session_id for e in events if isinstance(e, SnapshotTaken))
            await executor.close_session(result.session_id, owner="slow", conversation=number)
