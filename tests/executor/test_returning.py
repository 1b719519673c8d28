"""Sessions that come back though nobody parked them in peace: after a stop, a kill, a crash, or with damage."""

import asyncio
import dataclasses
import errno
import json
import os
import signal
import sys

import pytest

from executor import Executor, ExecutorError, NoSuchSession, account, snapshots
from executor.store import Folder, Record
from tests.executor.conftest import A, run, saved, zygotes
from tests.executor.crowd import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_after_a_stop_and_a_start_sessions_are_there_under_the_same_ids_and_owners(settings):
    a = {"owner": "a", "conversation": "1"}
    chosen = settings()
    async with Executor(chosen) as executor:
        first = await run(executor, "x = 41; open('f', 'w').write('data')", **a)
        other = await executor.create_session(owner="b")
        await run(executor, "y = 2", owner="b", session_id=other.id)
    async with Executor(chosen) as executor:
        assert [s.id for s in executor.list_sessions(**a)] == [first.session_id]
        with pytest.raises(NoSuchSession):
            executor.session(first.session_id, owner="b")
        result = await run(executor, "print(x + 1, open('f').read())", **a)
        assert (result.stdout, result.session_id) == ("42 data\n", first.session_id)
        assert (await run(executor, "print(y)", owner="b", session_id=other.id)).stdout == "2\n"
        assert [entry.code for entry in await executor.history(other.id, owner="b")] == ["y = 2", "print(y)"]


async def test_of_two_own_sessions_of_a_conversation_the_one_used_last_is_it(settings, tmp_path):
    chosen, made = settings(), []
    kept = tmp_path / "kept"
    for number in range(4):
        # a volume that does not show what is there
        hidden = [path.rename(tmp_path / path.name) for path in kept.glob("??") if path.is_dir()]
        async with Executor(chosen) as executor:
            made.append((await run(executor, f"x = {number}", **A)).session_id)
        for path in hidden:
            (kept / path.name).mkdir(exist_ok=True)
            for file in path.iterdir():
                file.rename(kept / path.name / file.name)
            path.rmdir()
    assert len(set(made)) == 4
    async with Executor(chosen) as executor:
        result = await run(executor, "print(x)", **A)
        assert (result.stdout, result.session_id) == ("3\n", made[3])


async def test_sessions_that_the_store_did_not_show_at_the_start_are_found_later(settings, monkeypatch):
    chosen = settings()
    async with Executor(chosen) as executor:
        first = await run(executor, "x = 1", **A)
        other = await run(executor, "x = 2", owner="b", conversation="1")
    names, blind = Folder.names, True

    def listed(self, folder):
        if blind and len(folder) == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return names(self, folder)

    monkeypatch.setattr(Folder, "names", listed)
    monkeypatch.setattr(snapshots, "FIND_EVERY", 0.5)
    async with Executor(chosen) as executor:
        new = await run(executor, "y = 3", **A)
        assert new.session_id != first.session_id
        blind = False
        await until(lambda: len(executor.list_sessions(**A)) == 2)
        # nobody has begun anew there
        assert (await run(executor, "print(x)", owner="b", conversation="1")).stdout == "2\n"
        again = await run(executor, "print(y)", **A)
        assert (again.stdout, again.session_id) == ("3\n", new.session_id)
        assert first.session_id in again.notices[0]
        former = await run(executor, "print(x)", session_id=first.session_id, **A)
        assert former.stdout == "1\n"
    assert other.success


async def test_a_session_whose_processes_are_killed_goes_on_from_its_snapshot_and_says_so(settings):
    async with Executor(settings()) as executor:
        await run(executor, "x = 1", **A)
        await saved(executor)
        working = asyncio.create_task(run(executor, "x = 2\nimport time; time.sleep(99)", **A))
        await asyncio.sleep(0.3)
        (zygote,) = zygotes()
        for leader in zygote.children():
            os.kill(leader.pid, signal.SIGKILL)
        result = await working
        assert result.status == "lost" and "as it was at" in " ".join(result.notices)
        again = await run(executor, "print(x)", **A)
        assert again.stdout == "1\n" and "ended unexpectedly" in again.notices[0]
        assert "not run again" in again.notices[0]


async def test_what_was_lost_is_told_also_when_it_was_looked_at_parked_and_restarted_first(settings):
    chosen = settings(park_after=1.0)
    async with Executor(chosen) as executor:
        first = await run(executor, "x = 1; open('f', 'w').close()", **A)
        session = executor._up.keeper.table.get(first.session_id)
        session.using += 1  # however long saving takes, it is not parked before it is killed
        await saved(executor)
        (zygote,) = zygotes()
        for leader in zygote.children():
            os.kill(leader.pid, signal.SIGKILL)
        session.using -= 1
        await until(lambda: executor.list_sessions(**A)[0].state == "parked")
        for _ in range(2):
            # no cell: nobody hears what it is told
            assert [info.path for info in await executor.list_files(first.session_id, **A)] == ["f"]
            await until(lambda: executor.list_sessions(**A)[0].state == "parked")
    async with Executor(chosen) as executor:
        told = (await run(executor, "print(x)", **A)).notices
        assert (len(told), "ended unexpectedly" in told[0], "it was parked" in told[1]) == (2, True, True), told
        await saved(executor)
    async with Executor(chosen) as executor:
        (told,) = (await run(executor, "print(x)", **A)).notices
        assert told.startswith("Session restored, it was parked.")


async def test_a_worker_that_crashes_is_replaced_by_one_with_the_variables_of_the_last_snapshot(settings):
    async with Executor(settings()) as executor:
        await run(executor, "x = 1", **A)
        await saved(executor)
        crash = await run(executor, "x = 2\nimport os, signal; os.kill(os.getpid(), signal.SIGSEGV)", **A)
        assert crash.status == "crashed" and "come back as they were after cell 1" in " ".join(crash.notices)
        assert (await run(executor, "print(x)", **A)).stdout == "1\n"


async def test_what_a_language_loses_when_it_is_first_used_is_told_by_that_cell_and_only_once(settings):
    async with Executor(settings(max_sessions=1)) as executor:
        made = "require('fs').writeFileSync('m.js', 'exports.x = 1'); const m = require('./m'), other = 2"
        await run(executor, made, "javascript", **A)
        await run(executor, "1", owner="b")
        await run(executor, "echo 'throw new Error(1)' > m.js", "bash", **A)
        first = await run(executor, "typeof m === 'undefined' ? 'fresh start' : m.x", "javascript", **A)
        assert first.status == "ok" and "fresh start" in str(first.outputs), first
        assert " ".join(first.notices).count("could not") == 1 and "m" in first.notices[0], first.notices
        assert (await run(executor, "1", "javascript", **A)).notices == ()


async def test_what_python_holds_outside_of_its_variables_is_said_to_be_lost_when_it_is(settings):
    async with Executor(settings(max_sessions=1)) as executor:
        await run(executor, "%%writefile cfg.py\nTHRESHOLD = 1", **A)
        await run(executor, "%%writefile plain.py\ndef double(n):\n    return 2 * n", **A)
        await run(
            executor, "import cfg, plain, logging; cfg.THRESHOLD = 5; logging.basicConfig(level=logging.INFO)", **A
        )
        await run(executor, "1", owner="b")
        result = await run(executor, "print(cfg.THRESHOLD, plain.double(2), logging.root.handlers)", **A)
        said = " ".join(result.notices)
        assert result.stdout == "1 4 []\n" and "./cfg.py (loaded anew" in said and "basicConfig" in said, result
        assert "plain.py" not in said


KILLED = """
import asyncio, json, os, signal, sys
from executor import Executor, Settings

async def main():
    chosen = Settings(**json.loads(sys.argv[1]))
    async with Executor(chosen) as executor:
        a = {"owner": "a", "conversation": "1"}
        session = (await executor.session_for(**a)).id
        if sys.argv[2] == "after":
            await executor.execute("x = 1; open('f', 'w').write('data')", language="python", **a)
        else:
            await executor.start_execution("import time; x = 1; time.sleep(60)", language="python", **a)
        while not any(path.endswith(".snap") for _, _, files in os.walk(chosen.state_dir) for path in files):
            await asyncio.sleep(0.01)
        await asyncio.sleep(1)
        print(session, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["during", "after"])
async def test_killed_before_its_first_snapshot_a_session_is_found_again_and_told_that_it_is_empty(settings, when):
    chosen = settings(snapshot_after=3600.0, snapshot_every=3600.0, max_sessions=1)
    given = {field.name: getattr(chosen, field.name) for field in dataclasses.fields(chosen)}
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", KILLED, json.dumps(given), when, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(40):
        printed, _ = await server.communicate()
    async with Executor(chosen) as executor:
        a = {"owner": "a", "conversation": "1"}
        assert [session.id for session in executor.list_sessions(**a)] == [printed.decode().strip()]
        assert executor.list_sessions(**a)[0].snapshot_at is None
        result = await run(executor, "import os; print('x' in globals(), os.path.exists('f'))", **a)
        assert (result.stdout, result.session_id) == ("False False\n", printed.decode().strip())
        assert "restored empty" in result.notices[0] and "run the cells again" in result.notices[0]
        assert (await run(executor, "y = 1", **a)).notices == ()
        await run(executor, "1", owner="b")
        assert "it was parked" in (await run(executor, "y", **a)).notices[0]


async def test_a_session_whose_process_dies_before_its_first_snapshot_goes_on_empty_under_its_id(settings):
    async with Executor(settings(snapshot_after=3600.0)) as executor:
        a = {"owner": "a", "conversation": "1"}
        first = await run(executor, "x = 1", **a)
        await until(lambda: executor._up.keeper.table.get(first.session_id).snapshot.blank)
        working = asyncio.create_task(run(executor, "x = 2\nimport time; time.sleep(99)", **a))
        await asyncio.sleep(0.3)
        for leader in zygotes()[-1].children():
            leader.kill()
        lost = await working
        assert lost.status == "lost" and "are lost" in " ".join(lost.notices)
        again = await run(executor, "print('x' in globals())", **a)
        assert (again.stdout, again.session_id) == ("False\n", first.session_id)
        assert "restored empty" in again.notices[0]


async def test_a_call_that_waits_for_a_place_while_the_server_stops_does_not_live_and_is_not_said_to_be_lost(settings):
    chosen = settings(max_sessions=1, queue_wait=30.0)
    async with Executor(chosen) as executor:
        await run(executor, "x = 1", **A)
        await run(executor, "1", owner="b")
        # b's session works, a's waits for its place
        await executor.start_execution("import time; time.sleep(60)", language="python", owner="b")
        waiting = asyncio.create_task(run(executor, "x", **A))
        await until(lambda: executor._up.parking.places.waiting)
    with pytest.raises(ExecutorError, match="stopping"):
        await waiting
    async with Executor(chosen) as executor:
        result = await run(executor, "print(x)", **A)
        assert (result.stdout, "it was parked" in result.notices[0]) == ("1\n", True), result


async def test_a_session_that_was_woken_no_longer_says_that_nothing_came_after_it(settings):
    chosen = settings(max_sessions=1, snapshot_after=3600.0, snapshot_every=3600.0)
    async with Executor(chosen) as executor:
        await run(executor, "x = 1", **A)
        await run(executor, "1", owner="b")
        await run(executor, "x = 2", **A)
        session = executor._up.keeper.table.get(executor.list_sessions(**A)[0].id)
        await until(lambda: not session.snapshot.says_parked)
        for leader in zygotes()[-1].children():
            leader.kill()
        await until(lambda: not executor._backend.alive(session.ref))
        assert (await run(executor, "print(x)", **A)).stdout == "1\n"
        copy = json.loads(json.dumps(await stored(executor, session.id)))
        assert copy["parked"] is False


async def stored(executor, session_id):
    """What the store says beside a session's snapshot."""
    snapshot, parcel, _ = await executor._up.snapshots._store.load(session_id)
    await parcel.aclose()
    return snapshot.meta


async def test_a_session_that_was_damaged_while_the_server_was_down_is_told_of(settings, tmp_path):
    chosen = settings()
    async with Executor(chosen) as executor:
        first = await run(executor, "x = 1", **A)
    for path in (tmp_path / "kept").rglob("*.snap"):
        path.write_bytes(path.read_bytes()[:-1])
    async with Executor(chosen) as executor:
        with pytest.raises(NoSuchSession, match="damaged while the server was down"):
            await run(executor, "x", session_id=first.session_id, **A)
        with pytest.raises(NoSuchSession, match="There is no session"):
            await run(executor, "x", session_id=first.session_id, owner="b")
        result = await run(executor, "print('x' in globals())", **A)
        assert result.stdout == "False\n" and "damaged while the server was down" in result.notices[0]
        assert (await run(executor, "1", **A)).notices == ()
    # the damaged file is still there, but this was told
    async with Executor(chosen) as executor:
        assert "it was parked" in (await run(executor, "1", **A)).notices[0]
        await executor.close_session(result.session_id, **A)
        assert (await run(executor, "1", **A)).notices == ()


@pytest.mark.parametrize(
    "meta",
    [
        {"owner": ["a"]},
        {"conversation": 1},
        {"numbers": []},
        {"numbers": {"python": float("inf")}},
        {"created_at": "soon"},
        {"states": [{}]},
        {"packages": 1},
    ],
)
async def test_whatever_a_snapshot_says_about_its_session_it_is_read_or_left(settings, meta):
    good = {"owner": "a", "conversation": None, "own": False, "created_at": 1.0, "last_used": 1.0, "executions": 1}
    good |= {"numbers": {"python": 1}, "packages": {}, "parked": True, "states": []}
    assert account.session_of(Record("id", good, 1.0, 1, 1), settings()).owner == "a"
    assert account.session_of(Record("id", good | meta, 1.0, 1, 1), settings()) is None
