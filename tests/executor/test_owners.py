"""What one owner may take of a machine: told where it is too much, and never so much that others get nothing."""

import asyncio

import pytest

from executor import Busy, Executor, QuotaExceeded
from executor.shares import share_of
from tests.executor.conftest import A, run, saved
from tests.executor.crowd import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1024 * 1024
WRITE = f"import os; written = open('f', 'wb').write(os.urandom({3 * MIB}))"
"""3 MiB that no compression makes smaller."""


async def test_what_is_saved_of_a_session_counts_for_its_owner_though_nobody_measures(settings):
    async with Executor(settings(owner_disk_mb=2, max_sessions=1)) as executor:
        await run(executor, WRITE, **A)
        await run(executor, "1", owner="b")
        (session,) = executor.list_sessions(**A)
        assert session.state == "parked"
        assert executor._up.quotas.disk("a") == session.snapshot_bytes > 3 * MIB
        with pytest.raises(QuotaExceeded, match="saved sessions of this user take 4 MiB; the cap is 2 MiB"):
            await executor.create_session(owner="a")
        await executor.close_session(session.id, **A)
        assert executor._up.quotas.disk("a") == 0
        await executor.create_session(owner="a")


async def test_what_former_servers_saved_counts_and_so_does_what_is_saved_of_a_session_that_lives(settings):
    async with Executor(settings(snapshot_after=0.1)) as executor:
        await run(executor, WRITE, **A)
        session = await saved(executor)
        assert executor._up.quotas.disk("a") == session.snapshot.bytes > 3 * MIB
    async with Executor(settings()) as executor:
        assert executor._up.quotas.disk("a") > 3 * MIB


async def test_what_was_closed_while_it_was_saved_or_measured_is_not_counted_any_more(settings, monkeypatch):
    async with Executor(settings(snapshot_after=3600)) as executor:
        up = executor._up
        stats, save = up.backend.stats, up.snapshots._store.save
        await run(executor, WRITE, **A)
        (session,) = executor.list_sessions(**A)

        async def close_meanwhile(ref):
            found = await stats(ref)
            await executor.close_session(session.id, **A)
            return found

        monkeypatch.setattr(up.backend, "stats", close_meanwhile)
        assert await executor.measure() == []
        assert (up.quotas.memory("a"), up.quotas.disk("a")) == (0, 0)
        monkeypatch.undo()

        await run(executor, WRITE, **A)
        (session,) = executor.list_sessions(**A)
        closing = []

        async def save_meanwhile(*args, **kwargs):
            record = await save(*args, **kwargs)
            closing.append(asyncio.create_task(executor.close_session(session.id, **A)))
            await until(lambda: not executor.list_sessions(**A))
            return record

        monkeypatch.setattr(up.snapshots._store, "save", save_meanwhile)
        assert await up.snapshots.take(up.keeper.table.get(session.id))
        await asyncio.gather(*closing)
        assert up.quotas.disk("a") == 0


async def test_what_was_parked_while_it_was_measured_is_not_counted_as_if_it_lived(settings, monkeypatch):
    async with Executor(settings()) as executor:
        up = executor._up
        stats = up.backend.stats
        await run(executor, WRITE, **A)
        session = await saved(executor)

        async def park_meanwhile(ref):
            found = await stats(ref)
            assert await up.parking.park(session, "room")
            return found

        monkeypatch.setattr(up.backend, "stats", park_meanwhile)
        assert await executor.measure() == []
        assert (up.quotas.memory("a"), up.quotas.disk("a")) == (0, session.snapshot.bytes)


async def test_calls_that_open_sessions_at_once_do_not_pass_the_cap_together(settings):
    async with Executor(settings(owner_sessions=2)) as executor:
        made = await asyncio.gather(*(executor.create_session(owner="a") for _ in range(6)), return_exceptions=True)
        assert sum(isinstance(one, QuotaExceeded) for one in made) == 4, made
        (mine, _) = executor.list_sessions(owner="a")
        await executor.close_session(mine.id, owner="a")
        await executor.create_session(owner="a")
        with pytest.raises(QuotaExceeded, match="the cap is 2"):
            await executor.create_session(owner="a")


SLEEP = "import time; time.sleep(60)"


async def sessions_of(executor, owner, number):
    return [(await executor.create_session(owner=owner)).id for _ in range(number)]


async def test_cells_that_only_wait_for_their_own_owners_cap_keep_no_place_from_others(settings):
    async with Executor(settings(max_sessions=4, owner_concurrent=2, queue_wait=4, max_concurrent=0)) as executor:
        mine = await sessions_of(executor, "a", 4)
        begun = asyncio.gather(
            *(executor.start_execution(SLEEP, language="python", owner="a", session_id=one) for one in mine),
            return_exceptions=True,
        )
        await asyncio.sleep(0.5)
        # two at once: one alone would be served by a session that just made way
        theirs = await asyncio.gather(run(executor, "print('b')", owner="b"), run(executor, "print('c')", owner="c"))
        assert [result.stdout for result in theirs] == ["b\n", "c\n"]
        ends = await begun
        refused = [end for end in ends if isinstance(end, Busy)]
        assert len(refused) == 2 and "2 sessions of this user at work" in str(refused[0]), ends
        assert "Try again in" in str(refused[0])
        assert executor._up.keeper.table.get(mine[0]).running is not None
        # in a session that is at work already, nobody waits for the share
        assert await executor.list_files(mine[0], owner="a") == []


async def sending(executor, owner, session_id):
    """A file that goes on coming until the event is set; and its task."""
    come, ended = asyncio.Event(), asyncio.Event()

    async def chunks():
        come.set()
        yield b"x"
        await ended.wait()

    task = asyncio.create_task(executor.put_file(session_id, "f", chunks(), owner=owner))
    await asyncio.wait((task, asyncio.create_task(come.wait())), return_when=asyncio.FIRST_COMPLETED)
    return ended, task


async def test_files_under_way_hold_no_more_than_the_owners_share_and_the_next_begins_when_one_ends(settings):
    async with Executor(settings(max_sessions=2, queue_wait=20)) as executor:
        mine = await sessions_of(executor, "a", 2)
        ended, first = await sending(executor, "a", mine[0])
        second = asyncio.create_task(sending(executor, "a", mine[1]))
        third = asyncio.create_task(run(executor, "print('next')", owner="a", session_id=mine[1]))
        await asyncio.sleep(0.3)
        assert not second.done()
        assert (await run(executor, "print('b')", owner="b")).stdout == "b\n"
        ended.set()
        assert (await first).size == 1
        ended, task = await second
        # it is at work now, so that whoever waits for the same session waits no longer
        assert (await third).stdout == "next\n"
        ended.set()
        await task


async def test_whoever_goes_away_while_waiting_for_the_share_leaves_it_to_the_next(settings):
    async with Executor(settings(max_sessions=3, owner_concurrent=1, queue_wait=20)) as executor:
        mine = await sessions_of(executor, "a", 3)
        working = asyncio.create_task(run(executor, "import time; time.sleep(1)", owner="a", session_id=mine[0]))
        await asyncio.sleep(0.2)
        gone, kept = (asyncio.create_task(run(executor, "print(1)", owner="a", session_id=one)) for one in mine[1:])
        await asyncio.sleep(0.1)
        gone.cancel()
        assert (await kept).stdout == "1\n" and (await working).status == "ok"
        shares = executor._up.keeper._shares
        await until(lambda: not shares._waiting and not shares._look("a"))
        assert not any(session.busy for session in executor._up.keeper.table.all())


async def test_who_is_refused_has_no_session_made_that_nobody_told_him_of(settings):
    async with Executor(settings(max_sessions=2, queue_wait=0.3)) as executor:
        (mine,) = await sessions_of(executor, "a", 1)
        await executor.start_execution(SLEEP, language="python", owner="a", session_id=mine)
        with pytest.raises(Busy, match="1 session of this user at work"):
            await run(executor, "1", owner="a")
        assert [session.id for session in executor.list_sessions(owner="a")] == [mine]


@pytest.mark.parametrize(
    ("places", "cells", "share"), [(1, 4, 1), (2, 4, 1), (4, 4, 3), (10, 4, 5), (10, 8, 8), (10, 99, 9), (10, 0, 0)]
)
async def test_an_owners_share_is_never_all_where_there_are_several_places(settings, places, cells, share):
    assert share_of(settings(max_sessions=places, owner_concurrent=cells)) == share


async def test_an_owner_who_stands_for_many_people_may_have_every_place_at_work(settings):
    async with Executor(settings(max_sessions=2, queue_wait=0.3)) as executor:
        for one in await sessions_of(executor, "anonymous", 2):
            await executor.start_execution(SLEEP, language="python", owner="anonymous", session_id=one)
        live = executor._up.keeper.table.live()
        await until(lambda: [session.running is not None for session in live] == [True, True])
