"""Sessions that are parked, woken, found again after a restart, and what their owners are told of it."""

import asyncio
import dataclasses
import json
import os
import signal
import sys

import psutil
import pytest

from executor import Busy, Executor, ExecutorError, NoSuchSession, account, parking
from executor.events import SessionClosed, SessionParked, SessionRestored, SnapshotTaken
from executor.parking import AHEAD_AFTER, AHEAD_FROM
from executor.store import Record
from tests.executor.conftest import run, zygotes
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


async def test_a_session_whose_processes_are_killed_goes_on_from_its_snapshot_and_says_so(settings):
    events = []
    async with Executor(settings()) as executor:
        executor.bus.subscribe(events.append)
        a = {"owner": "a", "conversation": "1"}
        await run(executor, "x = 1", **a)
        await until(lambda: any(isinstance(e, SnapshotTaken) for e in events))
        working = asyncio.create_task(run(executor, "x = 2\nimport time; time.sleep(99)", **a))
        await asyncio.sleep(0.3)
        (zygote,) = zygotes()
        for leader in zygote.children():
            os.kill(leader.pid, signal.SIGKILL)
        result = await working
        assert result.status == "lost" and "as it was at" in " ".join(result.notices)
        again = await run(executor, "print(x)", **a)
        assert again.stdout == "1\n" and "ended unexpectedly" in again.notices[0]
        assert "not run again" in again.notices[0]


async def test_a_worker_that_crashes_is_replaced_by_one_with_the_variables_of_the_last_snapshot(settings):
    events = []
    async with Executor(settings()) as executor:
        executor.bus.subscribe(events.append)
        a = {"owner": "a", "conversation": "1"}
        await run(executor, "x = 1", **a)
        await until(lambda: any(isinstance(e, SnapshotTaken) for e in events))
        crash = await run(executor, "x = 2\nimport os, signal; os.kill(os.getpid(), signal.SIGSEGV)", **a)
        assert crash.status == "crashed" and "come back as they were after cell 1" in " ".join(crash.notices)
        assert (await run(executor, "print(x)", **a)).stdout == "1\n"


async def test_closing_a_session_leaves_nothing_of_it_in_the_store(settings, tmp_path):
    async with Executor(settings(max_sessions=1)) as executor:
        a = {"owner": "a", "conversation": "1"}
        first = await run(executor, "secret = 'needle-in-the-store'", **a)
        await run(executor, "1", owner="b")
        assert executor.session(first.session_id, **a).state == "parked"
        count = len(list((tmp_path / "kept").rglob("*")))
        await executor.close_session(first.session_id, **a)
        assert len(list((tmp_path / "kept").rglob("*"))) < count
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
        working = asyncio.create_task(run(executor, "import time; time.sleep(1.5); print('done')", **a))
        await asyncio.sleep(0.4)
        with pytest.raises(Busy, match="Try again in"):
            await run(executor, "1", owner="b")
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


async def test_where_more_sessions_are_in_use_than_can_live_the_next_place_is_free_before_it_is_needed(settings):
    async with Executor(settings(max_sessions=AHEAD_FROM)) as executor:
        places = executor._up.parking.places
        for number in range(AHEAD_FROM):
            await run(executor, f"x = {number}", owner="a", conversation=str(number))
        # as many as there are places: nobody is parked for somebody who may never come
        await asyncio.sleep(3 * AHEAD_AFTER)
        assert places.taken == AHEAD_FROM
        await run(executor, "x = 99", owner="a", conversation="99")
        await until(lambda: places.taken == AHEAD_FROM - 1)
        assert [s.state for s in executor.list_sessions(owner="a", conversation="1")] == ["parked"]
        for number in range(AHEAD_FROM):
            result = await run(executor, "print(x)", owner="a", conversation=str(number))
            assert result.stdout == f"{number}\n"


async def test_of_a_few_places_none_is_made_ahead_and_none_for_sessions_out_of_use(settings, monkeypatch):
    async with Executor(settings(max_sessions=2)) as executor:
        for number in range(3):
            await run(executor, "1", owner="a", conversation=str(number))
        await asyncio.sleep(3 * AHEAD_AFTER)
        assert executor._up.parking.places.taken == 2
    monkeypatch.setattr(parking, "IN_USE_SECONDS", 0.0)
    async with Executor(settings(max_sessions=AHEAD_FROM)) as executor:
        for number in range(AHEAD_FROM + 1):
            await run(executor, "1", owner="b", conversation=str(number))
        await asyncio.sleep(3 * AHEAD_AFTER)
        assert executor._up.parking.places.taken == AHEAD_FROM


async def test_looking_at_the_history_of_a_parked_session_leaves_nothing_open(settings):
    async with Executor(settings(max_sessions=1)) as executor:
        a = {"owner": "a", "conversation": "1"}
        first = await run(executor, "x = 1", **a)
        await run(executor, "1", owner="b")

        def files_of_the_store():
            found = (os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd"))
            return [path for path in found if os.path.exists(path) and os.readlink(path).endswith((".pack", ".snap"))]

        for _ in range(5):
            assert [entry.code for entry in await executor.history(first.session_id, **a)] == ["x = 1"]
        assert executor.session(first.session_id, **a).state == "parked"
        await until(lambda: not files_of_the_store())


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


async def test_a_session_that_was_only_opened_leaves_nothing_in_the_store_when_it_is_closed(settings, tmp_path):
    async with Executor(settings()) as executor:
        session = await executor.create_session(owner="a")
        await executor.close_session(session.id, owner="a")
        await asyncio.sleep(0.3)
        assert not list((tmp_path / "kept").rglob("*.snap"))


A = {"owner": "a", "conversation": "1"}


async def saved(executor):
    """Wait until everything of a's session is saved."""
    session = executor._up.keeper.table.get(executor.list_sessions(**A)[0].id)
    await until(lambda: session.snapshot.dirty_since is None and session.snapshot.taken_at is not None)
    return session


async def test_a_session_that_rests_and_is_saved_is_parked_without_being_saved_again(settings):
    events = []
    chosen = settings(max_sessions=1, snapshot_after=0.1, security_policy="standard")
    async with Executor(chosen) as executor:
        await run(executor, "x = 41; open('f', 'w').write('data')", **A)
        await saved(executor)
        refused = await run(executor, "sudo ls", "bash", **A)
        assert refused.status == "blocked"
        await saved(executor)
        executor.bus.subscribe(events.append)
        await run(executor, "1", owner="b")
        assert executor.list_sessions(**A)[0].state == "parked"
        assert not [e for e in events if isinstance(e, SnapshotTaken) and e.owner == "a"]
    async with Executor(chosen) as executor:
        # nor does a later server think that something came after
        result = await run(executor, "print(x + 1, open('f').read())", **A)
        assert (result.stdout, "it was parked" in result.notices[0]) == ("42 data\n", True), result
        history = await executor.history(result.session_id, **A)
        assert [entry.result.status for entry in history] == ["ok", "blocked", "ok"]


SHOW = """
import os

def show(n):  # whole, whenever somebody looks
    with open("g", "w") as file:
        file.write(str(n))
    os.replace("g", "f")
"""


@pytest.mark.parametrize(
    ("language", "code"),
    [
        (
            "python",
            "import threading, time\nn = 0\ndef write():\n    global n\n    while True:\n        n += 1\n"
            "        show(n)\n        time.sleep(0.05)\n"
            "threading.Thread(target=write, daemon=True).start()",
        ),
        (
            "javascript",
            "var n = 0; const fs = require('fs'); "
            "setInterval(() => { n += 1; fs.writeFileSync('g', String(n)); fs.renameSync('g', 'f') }, 50).unref(); 0",
        ),
    ],
    ids=["a thread", "an event loop"],
)
async def test_what_acts_by_itself_between_cells_is_saved_when_it_is_parked(settings, language, code):
    async with Executor(settings(max_sessions=1, snapshot_after=0.1, security_policy="off")) as executor:
        await run(executor, SHOW, **A)
        assert (await run(executor, code, language, **A)).status == "ok"
        session = await saved(executor)
        await until(lambda: list(executor._backend._sessions.glob("*/f")))
        path = next(folder for folder in executor._backend._sessions.iterdir() if (folder / "f").exists()) / "f"
        then = int(path.read_text() or 0)
        await until(lambda: int(path.read_text() or 0) > then + 10)
        assert session.snapshot.dirty_since is None
        await run(executor, "1", owner="b")
        assert executor.list_sessions(**A)[0].state == "parked"
        show = "console.log(n)" if language == "javascript" else "print(n)"
        for result in (await run(executor, "print(open('f').read())", **A), await run(executor, show, language, **A)):
            assert int(result.stdout) > then + 8, result


ENDS = {
    "a thread": (
        "python",
        """
import threading, time
def write():
    global n
    while not os.path.exists("go"):
        time.sleep(0.01)
    n = 1
    show(1)
threading.Thread(target=write).start()
""",
    ),
    "a process": ("bash", "(while [ ! -e go ]; do sleep 0.05; done; echo 1 > g; mv g f) &"),
}


async def touch(executor, name):
    """Make a file in the only session's folder, past the server, which does not hear of it."""
    await until(lambda: len(list(executor._backend._sessions.iterdir())) == 1)
    (folder,) = executor._backend._sessions.iterdir()
    (folder / name).write_text("")


@pytest.mark.parametrize("what", ENDS)
async def test_what_ends_between_the_last_save_and_parking_is_saved_too(settings, what):
    language, code = ENDS[what]
    async with Executor(settings(max_sessions=1, snapshot_after=0.1, security_policy="off")) as executor:
        await run(executor, f"{SHOW}\nn = {int(what == 'a process')}", **A)
        assert (await run(executor, code, language, **A)).status == "ok"
        session = await saved(executor)
        await touch(executor, "go")
        await until(lambda: list(executor._backend._sessions.glob("*/f")))
        await asyncio.sleep(0.3)
        if what == "a thread":
            # when the shell is saved, Python's thread has ended, and no cell of Python's ran
            await run(executor, "true", "bash", **A)
            await saved(executor)
        await run(executor, "1", owner="b")
        assert session.ref is None
        result = await run(executor, "print(n, open('f').read().strip())", **A)
        assert result.stdout == "1 1\n", result


async def test_a_state_that_cannot_be_saved_once_more_when_it_is_parked_stays_as_it_was_and_that_is_told(settings):
    code = """
import os, threading, time
n = 1
class Bomb:
    def __reduce__(self):
        return os.abort, ()
def plant():
    global n, bomb
    while not os.path.exists("go"):
        time.sleep(0.01)
    n, bomb = 2, Bomb()
    open("f", "w").write("planted")
    time.sleep(600)
threading.Thread(target=plant, daemon=True).start()
"""
    async with Executor(settings(max_sessions=1, snapshot_after=0.1)) as executor:
        await run(executor, code, **A)
        session = await saved(executor)
        await touch(executor, "go")
        await until(lambda: list(executor._backend._sessions.glob("*/f")))
        await run(executor, "1", owner="b")
        assert session.ref is None
        result = await run(executor, "print(n, 'bomb' in globals(), open('f').read())", **A)
        assert result.stdout == "1 False planted\n", result
        assert "what changed between cells (could not be saved" in result.notices[0], result.notices


async def test_what_begins_when_a_session_is_woken_is_saved_though_no_cell_ran(settings):
    code = """
class Wakes:
    def __reduce__(self):
        return wake, ()
def wake():
    import os, threading, time  # the names of the session are not there yet
    def write():
        while not os.path.exists("go"):
            time.sleep(0.01)
        open("f", "w").write("2")
    threading.Thread(target=write).start()
    return 1
n = Wakes()
"""
    async with Executor(settings(max_sessions=1, snapshot_after=0.1, security_policy="off")) as executor:
        await run(executor, code, **A)
        session = await saved(executor)
        await run(executor, "1", owner="b")
        await executor.list_files(session.id, **A)
        await touch(executor, "go")
        await until(lambda: list(executor._backend._sessions.glob("*/f")))
        await run(executor, "1", owner="b")
        assert session.ref is None
        assert "f" in [info.path for info in await executor.list_files(session.id, **A)]


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
