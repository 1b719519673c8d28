"""Killed without warning, the server leaves no process and no folder behind."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

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
