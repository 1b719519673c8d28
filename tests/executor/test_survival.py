"""Killed without warning, the server leaves no process and no folder behind."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from executor import Executor, Settings

SERVER = """
import asyncio, json, os, sys
from executor import Executor, Settings

async def main():
    async with Executor(Settings(security_policy="off", allow_weak_sandbox=True)) as executor:
        for code, language in [
            ("import time; time.sleep(600)", "python"),
            ("setsid sleep 600 & (setsid sleep 600 &); sleep 600", "bash"),
            ("while (true) {}", "javascript"),
        ]:
            await executor.start_execution(code, language=language, owner="a", timeout=599)
        await asyncio.sleep(2)
        backend = executor._backend
        print(json.dumps({"state": str(backend._state)}), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_the_server(how):
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    state = Path(json.loads(server.stdout.readline())["state"])
    tree = psutil.Process(server.pid).children(recursive=True)
    assert len(tree) > 8
    assert state.exists()
    server.send_signal(how)
    server.wait(15)
    _, alive = psutil.wait_procs(tree, timeout=15)
    assert alive == []
    deadline = time.monotonic() + 15
    while state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not state.exists()


BUSY = """
import asyncio, sys
from executor import Executor, Settings

async def main():
    async with Executor(Settings(security_policy="off", allow_weak_sandbox=True, work_dir=sys.argv[1])) as executor:
        for owner in "abcdef":
            await executor.execute("open('f', 'w').write('x')", language="python", owner=owner, conversation="1")
        print("ready", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_server_that_begins_where_one_was_just_killed_keeps_its_sessions(tmp_path):
    work = tmp_path / "work"
    command = [sys.executable, "-c", BUSY, str(work)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as server:
        assert server.stdout.readline() == b"ready\n"
        former = psutil.Process(server.pid).children(recursive=True)
        # as when a machine is out of breath: nothing of the former server gets to its end for a while
        for process in former:
            with contextlib.suppress(psutil.NoSuchProcess):  # a copy that saves a session ends by itself
                process.suspend()
        server.kill()
    async with Executor(Settings(security_policy="off", allow_weak_sandbox=True, work_dir=str(work))) as executor:
        a = {"language": "python", "owner": "a", "conversation": "1"}
        await executor.execute("x = 1", **a)
        for process in former:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
        _, alive = await asyncio.to_thread(psutil.wait_procs, former, 15)
        assert alive == []
        assert (await executor.execute("print(x, open('g', 'w').write('y'))", **a)).stdout == "1 1\n"
        other = await executor.execute("print(2)", language="python", owner="b", conversation="1")
        assert other.stdout == "2\n"
    assert not [name for name in os.listdir(work) if name.startswith((".view", "sessions"))]
