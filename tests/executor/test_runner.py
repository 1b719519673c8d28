"""Executions that are stopped at odd moments: each one ends, and its session goes on."""

import asyncio

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_code_that_is_interrupted_in_the_moment_it_is_queued_ends_and_holds_nothing(caller):
    executor, session = caller.executor, {"session_id": caller.session_id, "owner": caller.owner}
    _, execution = await executor.start_execution("import time; time.sleep(60)", language="python", **session)
    assert await executor.interrupt(execution_id=execution, **session)
    async with asyncio.timeout(10):
        events = [event async for event in executor.attach(execution, **session)]
    assert events[-1].result.status == "interrupted"
    assert (await caller.run("print('next')")).stdout == "next\n"
    assert not executor._up.keeper.table.get(caller.session_id).busy
