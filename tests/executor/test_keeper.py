"""What the keeper keeps alive, and for how long."""

import asyncio
import signal

import pytest

from executor import Executor
from tests.executor.conftest import run, zygotes
from tests.executor.crowd import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

A = {"owner": "a", "conversation": "1"}


async def parked(executor):
    await until(lambda: executor.list_sessions(**A)[0].state == "parked")


async def test_a_session_that_is_being_woken_does_not_expire_under_its_caller(settings):
    days = 9 / 86_400
    async with Executor(settings(park_after=1, retention_days=days)) as executor:
        first = await run(executor, "x = 1", **A)
        await parked(executor)
        (zygote,) = zygotes()
        zygote.send_signal(signal.SIGSTOP)
        try:
            waking = asyncio.create_task(run(executor, "print(x)", **A))
            await asyncio.sleep(14)
        finally:
            zygote.send_signal(signal.SIGCONT)
        result = await waking
        assert (result.stdout, result.session_id) == ("1\n", first.session_id), result
        assert [session.id for session in executor.list_sessions(**A)] == [first.session_id]


async def test_a_session_that_is_only_looked_at_is_used_and_does_not_expire(settings):
    days = 60 / 86_400
    async with Executor(settings(park_after=1, retention_days=days)) as executor:
        first = await run(executor, "open('f', 'w').write('x')", **A)
        await parked(executor)
        saved = executor.session(first.session_id, **A).snapshot_at
        await asyncio.sleep(7)
        assert [info.path for info in await executor.list_files(first.session_id, **A)] == ["f"]
        await parked(executor)
        assert executor.session(first.session_id, **A).snapshot_at > saved + 6
