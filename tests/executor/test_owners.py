"""What one owner may take of a machine: told where it is too much, and never so much that others get nothing."""

import asyncio

import pytest

from executor import Executor, QuotaExceeded
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
