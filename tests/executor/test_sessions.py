"""Whose a session is, how it ends, and what its owner learns of that."""

import asyncio
import contextlib
import hashlib
import os

import psutil
import pytest

from executor import Busy, Executor, NoSuchExecution, NoSuchSession
from executor.events import SessionClosed, SessionOpened
from tests.executor.conftest import zygotes
from tests.executor.crowd import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def run(executor, code, **kwargs):
    return await executor.execute(code, language="python", **kwargs)


async def test_a_session_is_its_owners_and_its_conversations_alone(executor):
    mine = await executor.create_session(owner="a", conversation="1")
    others = [
        {"owner": "b", "conversation": "1"},
        {"owner": "a", "conversation": "2"},
        {"owner": "a"},
        {"owner": "anonymous"},
    ]
    with pytest.raises(NoSuchSession) as unknown:
        executor.session("x" * 22, owner="a", conversation="1")
    for other in others:
        with pytest.raises(NoSuchSession) as foreign:
            executor.session(mine.id, **other)
        assert str(foreign.value).replace(mine.id, "ID") == str(unknown.value).replace("x" * 22, "ID")
        with pytest.raises(NoSuchSession):
            await executor.history(mine.id, **other)
        with pytest.raises(NoSuchSession):
            await run(executor, "1", session_id=mine.id, **other)
        with pytest.raises(NoSuchSession):
            await executor.list_files(mine.id, **other)
        with pytest.raises(NoSuchSession):
            await executor.close_session(mine.id, **other)
        with pytest.raises(NoSuchSession):
            await executor.interrupt(session_id=mine.id, **other)
        assert executor.list_sessions(**other) == []
    assert [s.id for s in executor.list_sessions(owner="a", conversation="1")] == [mine.id]
    await executor.close_session(mine.id, owner="a", conversation="1")


async def test_two_first_calls_of_a_conversation_share_its_session(executor):
    results = await asyncio.gather(*(run(executor, "1", owner="c", conversation="1") for _ in range(5)))
    assert len({result.session_id for result in results}) == 1
    other = await run(executor, "1", owner="c", conversation="2")
    assert other.session_id != results[0].session_id


async def test_without_a_conversation_every_call_gets_a_fresh_session(executor):
    first = await run(executor, "x = 1", owner="anonymous")
    second = await run(executor, "print('x' in globals())", owner="anonymous")
    assert first.session_id != second.session_id
    assert second.stdout == "False\n"
    assert (await run(executor, "print(x)", owner="anonymous", session_id=first.session_id)).stdout == "1\n"


async def test_without_snapshots_the_longest_idle_session_ends_over_the_cap_and_its_owner_is_told(make_settings):
    async with Executor(make_settings(max_sessions=2, snapshots=False)) as executor:
        await run(executor, "x = 1", owner="a", conversation="1")
        kept = await executor.create_session(owner="b")
        await executor.create_session(owner="c")
        result = await run(executor, "print('x' in globals())", owner="a", conversation="1")
        assert result.stdout == "False\n"
        assert "new session" in result.notices[0] and "idle longest" in result.notices[0]
        with pytest.raises(NoSuchSession, match="idle longest"):
            executor.session(kept.id, owner="b")
        assert "new session" not in "".join((await run(executor, "1", owner="a", conversation="1")).notices)


async def test_nobody_at_work_is_ever_evicted(make_settings):
    async with Executor(make_settings(max_sessions=1, queue_wait=0.2, snapshots=False)) as executor:
        code = "print('at work', flush=True)\nimport time; time.sleep(60)"
        session_id, execution_id = await executor.start_execution(code, language="python", owner="a")
        async for event in executor.attach(execution_id, session_id=session_id, owner="a"):
            if getattr(event, "text", "") == "at work\n":
                break
        with pytest.raises(Busy, match="Try again in"):
            await executor.create_session(owner="b")
        assert await executor.interrupt(session_id=session_id, owner="a")
        ended = await executor.wait(session_id=session_id, owner="a", patience=20)
        assert (ended.status, ended.stdout) == ("interrupted", "at work\n")
        async with asyncio.timeout(20):
            while True:  # so short a wait may be too little for a look at the idle session
                with contextlib.suppress(Busy):
                    await executor.create_session(owner="b")
                    break


async def test_without_snapshots_an_idle_session_ends_and_says_so(make_settings):
    events = []
    async with Executor(make_settings(park_after=1, snapshots=False)) as executor:
        unsubscribe = executor.bus.subscribe(events.append)
        session = await executor.create_session(owner="a")
        # at work until the end: idle for a second, it would expire, too
        busy, _ = await executor.start_execution("import time; time.sleep(60)", language="python", owner="a")
        await until(lambda: any(isinstance(event, SessionClosed) for event in events))
        with pytest.raises(NoSuchSession, match="longer than sessions are kept"):
            executor.session(session.id, owner="a")
        assert executor.session(busy, owner="a")
    unsubscribe()
    assert [e.reason for e in events if isinstance(e, SessionClosed)] == ["expired", "shutdown"]
    assert len([e for e in events if isinstance(e, SessionOpened)]) == 2


async def test_closing_ends_what_runs_and_leaves_nothing(make_settings):
    before = {p.pid for p in psutil.Process().children(recursive=True)}
    settings = make_settings(spare_sessions=0)
    async with Executor(settings) as executor:
        session = await executor.create_session(owner="a")
        await executor.execute(
            "setsid sleep 5151 & (setsid sleep 5152 &) ; nohup sleep 5153 >/dev/null 2>&1 & echo",
            language="bash",
            owner="a",
            session_id=session.id,
        )
        working = asyncio.create_task(run(executor, "import time; time.sleep(99)", owner="a", session_id=session.id))
        await asyncio.sleep(0.3)
        await executor.close_session(session.id, owner="a")
        assert (await working).status == "lost"
        left = [p for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[-1].startswith("515")]
        assert left == []
        async with asyncio.timeout(10):
            while os.listdir(os.path.join(settings.work_dir, "sessions")):
                await asyncio.sleep(0.02)
        with pytest.raises(NoSuchSession, match="closed"):
            executor.session(session.id, owner="a")
    assert {p.pid for p in psutil.Process().children(recursive=True)} <= before


def leaders():
    """The processes that zygotes forked: leaders, and nothing else."""
    return {child.pid: child for zygote in zygotes() for child in zygote.children()}


async def test_a_session_whose_leader_is_killed_is_reported_and_leaves_nothing(make_settings):
    settings = make_settings(spare_sessions=0, snapshot_after=3600.0, snapshot_every=3600.0)
    async with Executor(settings) as executor:
        before = leaders()
        first = await run(executor, "x = 1", owner="a", conversation="x")
        (leader,) = [process for pid, process in leaders().items() if pid not in before]
        tree = leader.children(recursive=True)
        assert tree
        code = "import time; open('begun', 'w').close(); time.sleep(99)"
        working = asyncio.create_task(run(executor, code, owner="a", conversation="x"))
        await until(lambda: list(executor._backend._sessions.glob("*/begun")))
        # it is found again only once the store knows of it
        await until(lambda: executor._up.keeper.table.get(first.session_id).snapshot.blank)
        leader.kill()
        result = await working
        assert result.status == "lost"
        assert "are lost" in " ".join(result.notices)
        _, alive = psutil.wait_procs(tree, timeout=10)
        assert alive == []
        again = await run(executor, "print('x' in globals())", owner="a", conversation="x")
        assert again.stdout == "False\n"
        assert "ended unexpectedly" in again.notices[0]
        assert again.session_id == first.session_id
        async with asyncio.timeout(10):
            while len(os.listdir(os.path.join(settings.work_dir, "sessions"))) > 1:
                await asyncio.sleep(0.05)


SEARCH = """
import hashlib, re
found = set()
with open('/proc/self/maps') as maps, open('/proc/self/mem', 'rb', 0) as memory:
    for line in maps:
        span, mode, *_ = line.split()
        if 'r' not in mode or line.rstrip().endswith(('[vvar]', '[vsyscall]')):
            continue
        start, end = (int(part, 16) for part in span.split('-'))
        try:
            memory.seek(start)
            data = memory.read(end - start)
        except (OSError, OverflowError):
            continue
        found |= {hashlib.sha256(name).hexdigest() for name in re.findall(rb'[A-Za-z0-9_-]{32,}', data)}
print(*(sorted(found & WANTED)))
"""


async def test_no_guest_finds_the_name_of_anothers_folder_in_its_own_memory(make_settings):
    settings = make_settings(spare_sessions=0)
    async with Executor(settings) as executor:
        for owner in ("a", "b"):
            await executor.create_session(owner=owner)
        names = os.listdir(os.path.join(settings.work_dir, "sessions"))
        last = await executor.create_session(owner="c")
        hashes = {hashlib.sha256(name.encode()).hexdigest() for name in names}
        # the search finds what is there: a control that it can find anything at all
        control = hashlib.sha256(b"control" * 5).hexdigest()
        code = f"here = ('control' * 5).encode()\nWANTED = {hashes | {control}!r}\n{SEARCH}"
        result = await run(executor, code, owner="c", session_id=last.id, timeout=60)
        assert len(names) == 2
        assert result.stdout.split() == [control], result


async def test_an_unknown_execution_is_an_error_and_interrupting_nothing_is_not(executor):
    session = await executor.create_session(owner="a")
    with pytest.raises(NoSuchExecution):
        await executor.interrupt(session_id=session.id, owner="a", execution_id="nothing")
    assert await executor.interrupt(session_id=session.id, owner="a") is False
    with pytest.raises(NoSuchExecution):
        async for _ in executor.attach("nothing", session_id=session.id, owner="a"):
            pass


async def test_sessions_cost_little_and_come_quickly(executor):
    sessions = [await executor.create_session(owner="many") for _ in range(10)]
    stats = await executor.stats(sessions[0].id, owner="many")
    assert 0 < stats.memory < 64 * 2**20
    assert stats.processes >= 1
    for session in sessions:
        await executor.close_session(session.id, owner="many")


async def test_the_zygote_comes_back_and_living_sessions_do_not_notice(make_settings):
    async with Executor(make_settings()) as executor:
        session = await executor.create_session(owner="a")
        await run(executor, "x = 1", owner="a", session_id=session.id)
        found = zygotes()
        found[-1].kill()
        found[-1].wait(10)
        assert (await run(executor, "print(x)", owner="a", session_id=session.id)).stdout == "1\n"
        fresh = await executor.create_session(owner="a")
        assert (await run(executor, "print(2)", owner="a", session_id=fresh.id)).stdout == "2\n"
