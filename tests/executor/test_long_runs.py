"""Code that runs longer than its caller waits: let go of, asked for, stopped."""

import asyncio

import pytest

from executor import Busy, NoSuchExecution, NoSuchFile, NoSuchSession

pytestmark = pytest.mark.asyncio(loop_scope="module")

HELD = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)\n"
"""A cell that lasts until its test puts the file."""

SLOW = f"print('begun', flush=True)\n{HELD}print('done')"


async def begin(caller, code, language="python", **kwargs):
    _, execution_id = await caller.executor.start_execution(
        code, language=language, owner=caller.owner, session_id=caller.session_id, **kwargs
    )
    return execution_id


async def wait(caller, patience, execution_id=None):
    return await caller.executor.wait(
        session_id=caller.session_id, owner=caller.owner, patience=patience, execution_id=execution_id
    )


async def stop(caller, execution_id=None):
    return await caller.executor.interrupt(session_id=caller.session_id, owner=caller.owner, execution_id=execution_id)


async def printed(caller, execution_id, text):
    """Wait until the cell has printed it."""
    while True:
        result = await caller.executor.so_far(
            session_id=caller.session_id, owner=caller.owner, execution_id=execution_id
        )
        if text in result.stdout:
            return result
        await asyncio.sleep(0.05)


async def test_who_waits_long_enough_gets_the_result(caller):
    execution_id = await begin(caller, "import time\nprint('begun', flush=True)\ntime.sleep(0.2)\nprint('done')")
    result = await wait(caller, 30, execution_id)
    assert (result.status, result.stdout, result.execution_id) == ("ok", "begun\ndone\n", execution_id)


async def test_after_its_patience_a_caller_gets_the_output_so_far_and_then_the_end(caller):
    execution_id = await begin(caller, SLOW)
    await printed(caller, execution_id, "begun")
    early = await wait(caller, 0.05, execution_id)
    assert (early.status, early.stdout, early.return_code, early.success) == ("running", "begun\n", None, False)
    assert early.execution_id == execution_id and "get_execution_result" in early.notices[0]
    await caller.put("go", b"")
    late = await wait(caller, 30)
    assert (late.status, late.stdout) == ("ok", "begun\ndone\n")
    assert await wait(caller, 0, execution_id) == late


async def test_code_that_was_let_go_of_refuses_a_second_cell_at_once_and_can_be_stopped(caller):
    await caller.run("kept = 5")
    execution_id = await begin(caller, "import time\ntime.sleep(600)", timeout=600)
    await wait(caller, 0.2, execution_id)
    async with asyncio.timeout(10):
        with pytest.raises(Busy, match=f"{execution_id}.*get_execution_result.*interrupt_execution"):
            await caller.run("1")
    assert await stop(caller)
    # a stop takes a moment: the next cell waits for it instead of being refused
    assert (await caller.run("print(kept)")).stdout == "5\n"
    assert (await wait(caller, 0, execution_id)).status == "interrupted"
    assert not await stop(caller, execution_id)


async def test_code_that_its_caller_still_waits_for_lets_others_queue(caller):
    first = asyncio.create_task(caller.run("import time; time.sleep(1); x = 1"))
    await asyncio.sleep(0.1)
    assert (await caller.run("print(x)")).stdout == "1\n"
    assert (await first).success


async def test_code_that_waits_for_its_turn_says_so(caller):
    first = await begin(caller, HELD)
    second = await begin(caller, "print(2)")
    waiting = await wait(caller, 0.05, second)
    assert waiting.status == "running" and "not begun" in waiting.notices[0]
    await caller.put("go", b"")
    assert (await wait(caller, 30, second)).stdout == "2\n"
    assert (await wait(caller, 0, first)).status == "ok"


async def test_giving_up_the_wait_ends_nothing(caller):
    execution_id = await begin(caller, SLOW)
    waiting = asyncio.create_task(wait(caller, 60, execution_id))
    await asyncio.sleep(0.2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await caller.put("go", b"")
    assert (await wait(caller, 30, execution_id)).stdout == "begun\ndone\n"


async def test_output_so_far_has_its_newest_part_however_much_there_is(caller):
    code = "for n in range(20000): print('line', n)\nimport time; time.sleep(600)"
    execution_id = await begin(caller, code, timeout=600)
    result = await printed(caller, execution_id, "line 19999")
    assert len(result.stdout) <= 10_000 and result.stdout.startswith("line 0\n") and "... cut: " in result.stdout
    await stop(caller)
    assert (await wait(caller, 30, execution_id)).stdout == result.stdout


async def test_pictures_come_with_the_end_and_other_values_at_once(caller):
    code = f"plt.plot([1, 2]); plt.show()\ndisplay(42)\nprint('shown', flush=True)\n{HELD}"
    execution_id = await begin(caller, code)
    early = await printed(caller, execution_id, "shown")
    assert [output.data["text/plain"] for output in early.outputs] == ["42"]
    assert "1 picture so far" in early.notices[0]
    await caller.put("go", b"")
    late = await wait(caller, 30, execution_id)
    assert [bool(output.picture) for output in late.outputs] == [True, False]


async def test_there_must_be_something_to_wait_for(caller):
    with pytest.raises(NoSuchExecution, match="Nothing was run"):
        await wait(caller, 0)
    with pytest.raises(NoSuchExecution, match="knows no execution"):
        await wait(caller, 0, "nothing")
    with pytest.raises(NoSuchSession):
        await caller.executor.wait(session_id=caller.session_id, owner="mallory", patience=0)


async def test_a_file_is_known_by_its_path_alone(caller):
    await caller.put("in/.hidden", b"12345")
    info = await caller.executor.file_info(caller.session_id, "./in//.hidden", owner="alice")
    assert (info.path, info.size) == ("in/.hidden", 5)
    with pytest.raises(NoSuchFile, match="none"):
        await caller.executor.file_info(caller.session_id, "none.txt", owner="alice")
    with pytest.raises(NoSuchSession):
        await caller.executor.file_info(caller.session_id, "in/.hidden", owner="mallory")
