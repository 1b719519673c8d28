"""Sessions that are parked and woken: who makes room, what comes back, and what their owners are told of it."""

import asyncio
import contextlib
import os
import time

import psutil
import pytest

from executor import Busy, Executor, NoSuchSession, account, keeper, parking
from executor.events import SessionClosed, SessionParked, SessionRestored
from executor.parking import AHEAD_FROM
from executor.store import Record
from executor.store.names import key_of
from tests.executor.conftest import A, run, zygotes
from tests.executor.crowd import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_over_the_cap_a_session_is_parked_and_its_next_call_brings_everything_back(settings):
    events = []
    async with Executor(settings(max_sessions=1)) as executor:
        executor.bus.subscribe(events.append)
        a = {"owner": "a", "conversation": "1"}
        await run(
            executor, "import json\nx = [1]\ny = x\ndef f():\n    return len(x)\nopen('f.txt', 'w').write('hi')", **a
        )
        await run(executor, "v=5; g() { echo fun; }; cd /tmp; cd - >/dev/null; mkdir -p sub; cd sub", "bash", **a)
        await run(executor, "let n = {a: [1, 2]}", "javascript", **a)
        await run(executor, "1", owner="b")
        (session,) = executor.list_sessions(**a)
        assert session.state == "parked" and session.snapshot_bytes > 0 and {"x", "y"} <= set(session.names)
        result = await run(executor, "y.append(2); print(f(), open('f.txt').read(), json.dumps(x))", **a)
        assert result.stdout == "2 hi [1, 2]\n" and result.session_id == session.id
        assert "it was parked" in result.notices[0] and "restored: " in " ".join(result.notices)
        assert (await run(executor, "echo $v; g; basename $PWD", "bash", **a)).stdout == "5\nfun\nsub\n"
        assert "[ 1, 2 ]" in str((await run(executor, "n.a", "javascript", **a)).outputs)
    assert [e.reason for e in events if isinstance(e, SessionParked)][:2] == ["room", "room"]
    assert len([e for e in events if isinstance(e, SessionRestored)]) == 1


async def test_what_cannot_be_kept_is_named_with_its_reason_and_cell(settings):
    async with Executor(settings(max_sessions=1)) as executor:
        a = {"owner": "a", "conversation": "1"}
        await run(executor, "import socket\ns, t = socket.socketpair()\nkept = 1", **a)
        await run(executor, "1", owner="b")
        result = await run(executor, "print(kept, 's' in globals())", **a)
        assert result.stdout == "1 False\n"
        said = " ".join(result.notices)
        assert "lost: s (" in said and "socket" in said and "run cell 1 again" in said


async def test_an_idle_session_is_parked_and_its_processes_end(settings):
    async with Executor(settings(park_after=1)) as executor:
        before = {p.pid for p in psutil.Process().children(recursive=True)}
        a = {"owner": "a", "conversation": "1"}
        await run(executor, "x = 1", **a)
        await until(lambda: executor.list_sessions(**a)[0].state == "parked")
        await until(lambda: {p.pid for p in psutil.Process().children(recursive=True)} <= before)
        assert [entry.code for entry in await executor.history(executor.list_sessions(**a)[0].id, **a)] == ["x = 1"]
        assert (await run(executor, "print(x)", **a)).stdout == "1\n"
        assert len(await executor.history(executor.list_sessions(**a)[0].id, **a)) == 2


SLOW = """
import time
class Slow:
    def __reduce__(self):
        time.sleep(6)
        return int, ()
x, a, b, c = 1, Slow(), Slow(), Slow()
"""


async def test_who_comes_while_a_session_is_saved_to_be_parked_is_served_at_once(settings):
    async with Executor(settings(park_after=1, snapshot_after=3600.0)) as executor:
        first = await run(executor, SLOW, **A)
        session = executor._up.keeper.table.get(first.session_id)
        await until(session.life.locked)
        # the copy gives each of the three 4 s
        async with asyncio.timeout(10):
            assert [info.path for info in await executor.list_files(first.session_id, **A)] == []
            assert (await run(executor, "x += 1; print(x)", **A)).stdout == "2\n"
        assert session.life.locked()
        await until(lambda: not session.life.locked(), 30)
        result = await run(executor, "print(x)", **A)
        assert (result.stdout, result.notices) == ("2\n", ()), result


async def test_a_call_does_not_wait_for_ever_for_a_session_that_comes_back_slowly(settings, monkeypatch):
    monkeypatch.setattr(keeper, "WAKE_SECONDS", 0.0)
    async with Executor(settings(park_after=1, queue_wait=1.0)) as executor:
        await run(executor, "x = 1", **A)
        await until(lambda: executor.list_sessions(**A)[0].state == "parked")
        load, go_on = executor._up.snapshots._store.load, asyncio.Event()

        async def slow(session_id):
            await go_on.wait()
            return await load(session_id)

        monkeypatch.setattr(executor._up.snapshots._store, "load", slow)
        with pytest.raises(Busy, match="still being brought back"):
            await run(executor, "x += 1", **A)
        monkeypatch.setattr(keeper, "WAKE_SECONDS", 25.0)
        go_on.set()
        assert (await run(executor, "print(x)", **A)).stdout == "1\n"


async def test_closing_a_session_leaves_nothing_of_it_in_the_store(settings, tmp_path):
    async with Executor(settings(max_sessions=1)) as executor:
        a = {"owner": "a", "conversation": "1"}
        first = await run(executor, "secret = 'needle-in-the-store'", **a)
        await run(executor, "1", owner="b")
        assert executor.session(first.session_id, **a).state == "parked"
        its = f"{key_of(first.session_id)}*"
        assert list((tmp_path / "kept").rglob(its))
        await executor.close_session(first.session_id, **a)
        assert not list((tmp_path / "kept").rglob(its))
        with pytest.raises(NoSuchSession, match="closed"):
            executor.session(first.session_id, **a)


async def test_sessions_older_than_the_retention_are_deleted_and_counted(settings):
    events = []
    async with Executor(settings(retention_days=0.001)) as executor:
        await run(executor, "x = 1", owner="a", conversation="1")
    async with Executor(settings(retention_days=30)) as executor:
        (session,) = executor.list_sessions(owner="a", conversation="1")
    executor = Executor(settings(retention_days=0.0001, park_after=1))
    unsubscribe = executor.bus.subscribe(events.append)
    async with executor:
        await until(lambda: not executor.list_sessions(owner="a", conversation="1"), 120)
        with pytest.raises(NoSuchSession, match="longer than sessions are kept"):
            executor.session(session.id, owner="a", conversation="1")
    unsubscribe()
    assert [e.reason for e in events if isinstance(e, SessionClosed)] == ["expired"]


async def test_nothing_that_is_used_is_parked_and_a_full_machine_says_when_to_try_again(settings):
    async with Executor(settings(max_sessions=1, queue_wait=0.3)) as executor:
        a = {"owner": "a", "conversation": "1"}
        held = "import os, time\nopen('begun', 'w').close()\nwhile not os.path.exists('go'): time.sleep(0.02)\n"
        working = asyncio.create_task(run(executor, f"{held}print('done')", **a))
        await until(lambda: list(executor._backend._sessions.glob("*/begun")))
        with pytest.raises(Busy, match="Try again in"):
            await run(executor, "1", owner="b")
        assert not working.done()
        (begun,) = executor._backend._sessions.glob("*/begun")
        begun.with_name("go").touch()
        assert (await working).stdout == "done\n"


async def test_many_sessions_over_few_places_always_answer_right(settings):
    async with Executor(settings(max_sessions=3, max_concurrent=0)) as executor:
        expected = {}

        async def call(number):
            owner = f"o{number % 9}"
            n = expected[owner] = expected.get(owner, 0) + 1
            code = f"n = globals().get('n', 0) + 1; print('{owner}', n)"
            result = await run(executor, code, owner=owner, conversation="1")
            assert result.stdout == f"{owner} {n}\n", result

        for start in range(0, 45, 3):
            await asyncio.gather(*(call(number) for number in range(start, start + 3)))


async def looked_ahead(executor):
    """The places, once nobody looks ahead any more."""
    await until(lambda: executor._up.parking._ahead is None or executor._up.parking._ahead.done())
    return executor._up.parking.places


async def test_where_more_sessions_are_in_use_than_can_live_the_next_place_is_free_before_it_is_needed(settings):
    async with Executor(settings(max_sessions=AHEAD_FROM)) as executor:
        for number in range(AHEAD_FROM):
            await run(executor, f"x = {number}", owner="a", conversation=str(number))
        # as many as there are places: nobody is parked for somebody who may never come
        assert (await looked_ahead(executor)).taken == AHEAD_FROM
        await run(executor, "x = 99", owner="a", conversation="99")
        assert (await looked_ahead(executor)).taken == AHEAD_FROM - 1
        assert [s.state for s in executor.list_sessions(owner="a", conversation="1")] == ["parked"]
        for number in range(AHEAD_FROM):
            result = await run(executor, "print(x)", owner="a", conversation=str(number))
            assert result.stdout == f"{number}\n"


async def test_of_a_few_places_none_is_made_ahead_and_none_for_sessions_out_of_use(settings, monkeypatch):
    async with Executor(settings(max_sessions=2)) as executor:
        for number in range(3):
            await run(executor, "1", owner="a", conversation=str(number))
        assert (await looked_ahead(executor)).taken == 2
    chosen = settings(max_sessions=AHEAD_FROM)
    async with Executor(chosen) as executor:
        monkeypatch.setattr(parking, "IN_USE_SECONDS", 0.0)
        for number in range(AHEAD_FROM + 1):
            await run(executor, "1", owner="b", conversation=str(number))
        assert (await looked_ahead(executor)).taken == AHEAD_FROM
    monkeypatch.undo()
    async with Executor(chosen) as executor:
        # found again, they are as old as they were
        for session in executor._up.keeper.table.all():
            session.touched -= parking.IN_USE_SECONDS
        for number in range(AHEAD_FROM):
            await run(executor, "1", owner="b", conversation=str(number))
        assert (await looked_ahead(executor)).taken == AHEAD_FROM


async def test_a_session_that_is_found_again_is_as_old_as_it_was(settings):
    good = {"owner": "a", "conversation": None, "own": False, "created_at": 1.0, "executions": 1, "numbers": {}}
    good |= {"last_used": time.time() - 100, "packages": {}, "parked": True, "states": []}
    session = account.session_of(Record("id", good, 1.0, 1, 1), settings())
    assert 99 < time.monotonic() - session.touched < 130


@pytest.mark.parametrize("places", [2, AHEAD_FROM])
async def test_who_waits_is_served_by_a_session_that_need_not_be_saved_first_where_there_are_many(
    settings, places, monkeypatch
):
    monkeypatch.setattr(parking, "LOOK_SECONDS", 30.0)  # whoever does not answer in time counts as at work or at rest
    async with Executor(settings(max_sessions=places, snapshot_after=0.1)) as executor:
        # an event loop may change things at any time: it is saved again when it is parked
        await run(executor, "1", "javascript", owner="old", conversation="1")
        for number in range(places - 1):
            await run(executor, "1", owner="a", conversation=str(number))
        await until(lambda: all(s.snapshot.dirty_since is None for s in executor._up.keeper.table.live()))
        # whoever waits comes before the one who looks ahead
        executor._up.parking._ahead = asyncio.get_running_loop().create_future()
        await run(executor, "1", owner="b")
        state = executor.list_sessions(owner="old", conversation="1")[0].state
        assert state == ("parked" if places == 2 else "live")
        assert [s.state for s in executor.list_sessions(owner="a", conversation="0")] == [
            "live" if places == 2 else "parked"
        ]


def leaders():
    return [leader for zygote in zygotes() for leader in zygote.children()]


async def test_a_session_that_made_room_is_woken_beside_its_former_processes_which_end_soon(settings, monkeypatch):
    monkeypatch.setattr(parking, "LINGER", 12.0)
    async with Executor(settings(max_sessions=1)) as executor:
        await run(executor, "x = 1", **A)
        await run(executor, "1", owner="b")
        assert len(leaders()) == 2
        began = time.monotonic()
        assert (await run(executor, "print(x)", **A)).stdout == "1\n"
        assert time.monotonic() - began < 12.0 and len(leaders()) == 3
        await until(lambda: len(leaders()) == 1, 30)
        assert (await run(executor, "print(x)", **A)).stdout == "1\n"


async def test_of_a_session_that_is_closed_no_process_is_left_though_it_had_just_made_room(settings, monkeypatch):
    monkeypatch.setattr(parking, "LINGER", 8.0)
    async with Executor(settings(max_sessions=1)) as executor:
        first = await run(executor, "x = 1", **A)
        await run(executor, "1", owner="b")
        assert len(leaders()) == 2
        await executor.close_session(first.session_id, **A)
        # less than LINGER: a process that was left would still be there; one that has ended may wait to be reaped
        await until(lambda: len(leaders()) == 1, 4.0)
    monkeypatch.setattr(parking, "LINGER", 60.0)
    began = time.monotonic()
    async with Executor(settings(max_sessions=1)) as executor:
        await run(executor, "x = 1", **A)
        await run(executor, "1", owner="b")
        there = leaders()
        assert len(there) == 2
    assert not [leader for leader in there if leader.is_running()] and time.monotonic() - began < 30


async def test_sessions_that_make_room_for_memory_have_given_it_back_when_that_is_said(settings, monkeypatch):
    monkeypatch.setattr(parking, "LINGER", 60.0)
    monkeypatch.setattr("executor.local.backend.RELIEF_DEADLINE", 30.0)
    async with Executor(settings(max_sessions=4)) as executor:
        for owner in "abc":
            await run(executor, "x = bytearray(b'x') * (100 << 20)", owner=owner, conversation="1")
        backend, used = executor._backend, executor._backend._budget._used
        await until(lambda: all(s.snapshot.dirty_since is None for s in executor._up.keeper.table.live()), 30)
        before: list[int] = []
        while before != (before := sorted(used.values())):
            await asyncio.sleep(1.5)  # while they were saved, copies counted, too: looks go on until it has settled
        backend._budget.limit = sum(used.values()) - (50 << 20)
        backend._relieving = asyncio.create_task(backend._relieve())
        await backend._relieving
        assert not backend._ending and not backend._budget.excess
        await until(lambda: len(leaders()) == 2)  # those that have ended may wait to be reaped
        assert (await run(executor, "print(len(x) >> 20)", owner="a", conversation="1")).stdout == "100\n"


async def test_looking_at_the_history_of_a_parked_session_leaves_nothing_open(settings):
    async with Executor(settings(max_sessions=1)) as executor:
        a = {"owner": "a", "conversation": "1"}
        first = await run(executor, "x = 1", **a)
        await run(executor, "1", owner="b")

        def files_of_the_store():
            found = []
            for fd in os.listdir("/proc/self/fd"):
                with contextlib.suppress(OSError):  # a thread of the store's may close it meanwhile
                    found.append(os.readlink(f"/proc/self/fd/{fd}"))
            return [path for path in found if os.path.exists(path) and path.endswith((".pack", ".snap"))]

        for _ in range(5):
            assert [entry.code for entry in await executor.history(first.session_id, **a)] == ["x = 1"]
        assert executor.session(first.session_id, **a).state == "parked"
        await until(lambda: not files_of_the_store())


async def test_a_session_that_was_only_opened_leaves_nothing_in_the_store_when_it_is_closed(settings, tmp_path):
    async with Executor(settings()) as executor:
        session = await executor.create_session(owner="a")
        await executor.close_session(session.id, owner="a")
        await asyncio.sleep(0.3)
        assert not list((tmp_path / "kept").rglob("*.snap"))


async def test_a_parked_session_holds_no_results_but_those_nobody_was_given(settings):
    async with Executor(settings(max_sessions=1)) as executor:
        await run(executor, "'first'", **A)
        session_id, untold = await executor.start_execution("'second'", language="python", **A)
        told = (await run(executor, "'third'", **A)).execution_id
        newest = (await run(executor, "'fourth'", **A)).execution_id
        await run(executor, "1", owner="b")
        session = executor._up.keeper.table.get(session_id)
        assert session.ref is None and set(session.runs) == {untold, newest} and told not in session.runs
        ended = await executor.wait(session_id=session_id, execution_id=untold, patience=5, **A)
        assert "second" in str(ended.outputs)
