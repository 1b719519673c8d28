"""Names, dates and failures that only one session has are that session's: it lives, and so do all others."""

import pytest

from executor import Executor
from executor.events import Fault, SnapshotFailed
from tests.executor.conftest import A, run
from tests.executor.crowd import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

B = {"owner": "b", "conversation": "1"}

LONG_NAMES = """
import os
path = b"."
for _ in range(6):
    path += b"/" + b"\\xff" * 255
    os.mkdir(path)
for number in range(2000):
    open(path + b"/" + str(number).encode(), "w").close()
"""


async def test_names_that_are_long_in_json_are_saved_in_more_than_one_frame(settings):
    events = []
    async with Executor(settings(max_sessions=1)) as executor:
        executor.bus.subscribe(events.append)
        assert (await run(executor, LONG_NAMES, **A)).success
        await run(executor, "1", **B)
        result = await run(executor, "print(len(os.listdir(path)))", **A)
        assert result.stdout == "2000\n", result
    assert not [event for event in events if isinstance(event, Fault | SnapshotFailed)]


DATED = """
import os
x = 1
open('f', 'w').close()
try:
    os.utime('f', ({0}, {0}))
except (OSError, OverflowError):
    pass
"""


@pytest.mark.parametrize("seconds", ["-1", "-315619200", "10 ** 10", "253402300800", "2 ** 62"])
async def test_whatever_date_a_file_has_its_session_lives(settings, seconds):
    async with Executor(settings(max_sessions=1)) as executor:
        code = DATED.format(seconds)
        result = await run(executor, code, **A)
        assert (result.status, [file.path for file in result.files]) == ("ok", ["f"]), result
        listed = await executor.list_files(result.session_id, **A)
        assert [file.path for file in listed] == ["f"]
        await run(executor, "1", **B)
        assert (await run(executor, "print(x, os.path.exists('f'))", **A)).stdout == "1 True\n"


async def test_a_session_that_fails_in_an_unknown_way_keeps_nobody_from_being_parked(settings):
    events = []
    async with Executor(settings(max_sessions=2, park_after=2.0, snapshot_after=3600.0)) as executor:
        executor.bus.subscribe(events.append)
        odd = await run(executor, "x = 1", **A)
        save = executor._up.snapshots._save

        async def fail(session, *args, **kwargs):
            if session.id == odd.session_id:
                raise KeyError("odd")
            return await save(session, *args, **kwargs)

        executor._up.snapshots._save = fail
        await run(executor, "y = 1", **B)
        # a place is made by the other one, though the odd one is idle longer
        await run(executor, "z = 1", owner="c", conversation="1")
        assert executor.list_sessions(**B)[0].state == "parked"
        # and the sweep goes on, too
        await until(lambda: executor.list_sessions(owner="c", conversation="1")[0].state == "parked")
        assert (await run(executor, "print(x)", **A)).stdout == "1\n"
        assert any("odd" in event.detail for event in events if isinstance(event, SnapshotFailed))
        executor._up.snapshots._save = save
