"""What the keeper keeps alive, and for how long."""

import asyncio
import signal

import pytest

from executor import Executor, parking
from tests.executor.conftest import run, zygotes
from tests.executor.crowd import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

A = {"owner": "a", "conversation": "1"}


@pytest.fixture
def patient(monkeypatch):
    """However long a leader takes to tell what runs on: one that is too slow counts as having nothing."""
    monkeypatch.setattr(parking, "LOOK_SECONDS", 30.0)


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


async def test_who_comes_back_while_others_expire_stays(settings):
    days = 10 / 86_400
    b = {"owner": "b", "conversation": "1"}
    async with Executor(settings(park_after=1, retention_days=days)) as executor:
        await run(executor, "x = 1", **A)
        await parked(executor)
        second = await run(executor, "x = 2", **b)
        await until(lambda: executor.list_sessions(**b)[0].state == "parked")
        store = executor._up.snapshots._store
        delete, deleting, go_on = store.delete, asyncio.Event(), asyncio.Event()

        async def slow(session_id):
            deleting.set()
            await go_on.wait()
            await delete(session_id)

        store.delete = slow
        async with asyncio.timeout(30):
            await deleting.wait()
        # by now the second one is as old as the first
        await asyncio.sleep(3)
        assert (await run(executor, "print(x)", **b)).stdout == "2\n"
        go_on.set()
        await until(lambda: not executor.list_sessions(**A))
        await asyncio.sleep(1)
        result = await run(executor, "print(x)", **b)
        assert (result.stdout, result.session_id) == ("2\n", second.session_id), result


async def test_a_session_that_is_only_looked_at_is_used_and_does_not_expire(settings):
    days = 60 / 86_400
    async with Executor(settings(park_after=1, retention_days=days)) as executor:
        first = await run(executor, "open('f', 'w').write('x')", **A)
        await parked(executor)
        saved = executor.session(first.session_id, **A).snapshot_at
        await asyncio.sleep(7)
        assert [info.path for info in await executor.list_files(first.session_id, **A)] == ["f"]
        await parked(executor)
        await until(lambda: executor.session(first.session_id, **A).snapshot_at > saved + 6)


@pytest.mark.parametrize("snapshots", [True, False])
async def test_a_session_in_which_something_runs_on_counts_as_idle_only_when_that_has_ended(
    settings, snapshots, patient
):
    async with Executor(settings(park_after=1, snapshots=snapshots)) as executor:
        b = {"owner": "b", "conversation": "1"}
        await run(executor, "sleep 60 &", "bash", **A)
        # one that has ended, and that nobody has waited for, does not count
        await run(executor, "import subprocess; ended = subprocess.Popen(['true'])", **b)
        await until(lambda: [session for session in executor.list_sessions(**b) if session.state == "live"] == [])
        await asyncio.sleep(1)
        assert [session.state for session in executor.list_sessions(**A)] == ["live"]
        assert (await run(executor, "kill %1 && wait", "bash", **A)).status in ("ok", "error")
        await until(lambda: [session for session in executor.list_sessions(**A) if session.state == "live"] == [])


async def test_a_session_in_which_something_runs_on_makes_room_after_all_others(settings, patient):
    async with Executor(settings(max_sessions=2)) as executor:
        await run(executor, "sleep 60 & x=1", "bash", **A)
        await run(executor, "x = 1", owner="b", conversation="1")
        await run(executor, "x = 1", owner="c", conversation="1")
        states = {owner: executor.list_sessions(owner=owner, conversation="1")[0].state for owner in "abc"}
        assert states == {"a": "live", "b": "parked", "c": "live"}
        await run(executor, "sleep 60 & x=1", "bash", owner="c", conversation="1")
        await run(executor, "x = 1", owner="d", conversation="1")
        assert executor.list_sessions(**A)[0].state == "parked"
        told = " ".join((await run(executor, "echo $x", "bash", **A)).notices)
        assert "running in the background: sleep 60" in told
