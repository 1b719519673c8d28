"""What acts in a session between its cells: parked, it is saved with all of that, and only where there is any."""

import asyncio

import pytest

from executor import Executor, parking
from executor.events import SnapshotTaken
from tests.executor.conftest import A, run, saved
from tests.executor.crowd import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_session_that_rests_and_is_saved_is_parked_without_being_saved_again(settings, monkeypatch):
    monkeypatch.setattr(parking, "LOOK_SECONDS", 30.0)  # a leader that does not tell in time counts as at work
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


async def test_files_that_change_when_a_session_is_woken_are_saved_though_no_cell_ran(settings):
    code = """
class Counts:
    def __reduce__(self):
        return count, ()
def count():
    with open("loaded", "a") as file:
        file.write("x")
    return 1
count()
n = Counts()
"""
    async with Executor(settings(max_sessions=1, snapshot_after=0.1)) as executor:
        await run(executor, code, **A)
        session = await saved(executor)
        # written here, by the trial, and by each wake
        for times in (3, 4, 5):
            await run(executor, "1", owner="b")
            assert session.ref is None
            files = {info.path: info.size for info in await executor.list_files(session.id, **A)}
            assert files == {"loaded": times}


async def test_files_of_a_load_that_kills_its_worker_are_saved_too(settings):
    code = """
class Dies:
    def __reduce__(self):
        return die, ()
def die():
    import os, time
    with open("loaded", "a") as file:
        file.write(f"{time.time_ns()} ")
    if len(open("loaded").read().split()) > 1:
        os.abort()
    return 1
n = Dies()
"""
    async with Executor(settings(max_sessions=1, snapshot_after=0.1, security_policy="off")) as executor:
        await run(executor, code, **A)
        session = await saved(executor)
        found = []
        for _ in range(2):
            await run(executor, "1", owner="b")
            assert session.ref is None
            found.append(b"".join([piece async for piece in executor.get_file(session.id, "loaded", **A)]))
        # of the trial and of the first wake; at the second one the state that did that is gone
        assert len(found[0].split()) == 2 and found[1] == found[0]


@pytest.mark.parametrize("who", ["owner", "operator"])
async def test_code_that_waits_until_its_session_has_been_saved_can_be_stopped(settings, who):
    async with Executor(settings(max_sessions=1)) as executor:
        first = await run(executor, "x = 1", **A)
        session = executor._up.keeper.table.get(first.session_id)
        async with session.turn:  # as a save has it
            _, execution_id = await executor.start_execution("x = 2", language="python", session_id=session.id, **A)
            if who == "owner":
                assert await executor.interrupt(session_id=session.id, **A)
            else:
                assert await executor.admin_interrupt(session.id)
            result = await executor.wait(session_id=session.id, execution_id=execution_id, patience=20, **A)
            assert (result.status, "before it began" in result.notices[0]) == ("interrupted", True)
            assert not await executor.interrupt(session_id=session.id, **A)
        assert (await run(executor, "print(x)", session_id=session.id, **A)).stdout == "1\n"
