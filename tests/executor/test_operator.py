"""What an operator may do with sessions that are not theirs."""

import asyncio

import pytest

from executor import Executor, NoSuchSession

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_any_session_can_be_interrupted_and_keeps_its_variables(executor):
    session = await executor.create_session(owner="somebody", conversation="1")
    caller = {"owner": "somebody", "conversation": "1", "session_id": session.id}
    assert await executor.admin_interrupt(session.id) is False
    await executor.execute("x = 5", language="python", **caller)
    endless = asyncio.create_task(executor.execute("while True: pass", language="python", **caller))
    async with asyncio.timeout(20):
        while not await executor.admin_interrupt(session.id):
            await asyncio.sleep(0.02)
    assert (await endless).status == "interrupted"
    assert (await executor.execute("print(x)", language="python", **caller)).stdout == "5\n"
    await executor.admin_close(session.id)


async def test_any_session_can_be_closed_and_its_owner_is_told(executor):
    session = await executor.create_session(owner="somebody")
    await executor.admin_close(session.id)
    with pytest.raises(NoSuchSession, match="it was closed"):
        executor.session(session.id, owner="somebody")
    for act in (executor.admin_close, executor.admin_interrupt):
        with pytest.raises(NoSuchSession, match="has ended"):
            await act(session.id)


async def test_every_session_is_measured(executor):
    sessions = {(await executor.create_session(owner=owner)).id: owner for owner in ("a", "b", "c")}
    measured = {one.session_id: one for one in await executor.measure()}
    for session_id, owner in sessions.items():
        assert measured[session_id].owner == owner
        assert measured[session_id].memory > 2**20
        assert measured[session_id].processes >= 1
        await executor.admin_close(session_id)
    assert not sessions.keys() & {one.session_id for one in await executor.measure()}


async def test_before_the_start_nothing_is_measured_and_nothing_fails(make_settings):
    assert await Executor(make_settings()).measure() == []
