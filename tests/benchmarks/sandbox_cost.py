"""What the sandbox costs: the same figures with all of its layers and with none, in one run.

`python -m tests.benchmarks.sandbox_cost`; without layers it is a measurement only, there is no setting for it. As root
nothing is executed without layers, so root measures both sides as an ordinary user, in the disposable pod of the
attacks, where what is not held can break nothing.
"""

import asyncio
import json
import os
import subprocess
import sys

from executor import Executor, Settings
from tests.benchmarks.timing import UNCAPPED, p50, times

NONE = {"namespaces": False, "landlock": False, "filter": False, "notifier": False}
SPAWN = """
import subprocess, time, statistics
found = []
for _ in range(60):
    began = time.perf_counter(); subprocess.run(["true"]); found.append(time.perf_counter() - began)
print(statistics.median(found) * 1e3)
"""


async def figures() -> dict[str, float]:
    """Milliseconds: a session made with none kept ready, a warm `1+1`, a subprocess from Python."""
    async with Executor(
        Settings(
            spare_sessions=0,
            max_sessions=60,
            allow_weak_sandbox=True,
            **UNCAPPED,
            security_policy="standard",
        )
    ) as executor:
        sessions = []

        async def create():
            sessions.append(await executor.create_session(owner="bench"))

        async def run(code):
            result = await executor.execute(code, language="python", owner="bench", session_id=sessions[0].id)
            assert result.success, result
            return result

        await create()
        creates = await times(create, 40)
        for _ in range(50):
            await run("1+1")
        warm = await times(lambda: run("1+1"), 1000)
        return {"create_ms": p50(creates), "warm_ms": p50(warm), "spawn_ms": float((await run(SPAWN)).stdout)}


def measure() -> dict[str, dict[str, float]]:
    """The figures with the sandbox and without it, each in a process of its own, both in the same place."""
    found = {}
    place = [sys.executable, "-m", "tests.sandbox.pod", "--bare", "--"] if os.geteuid() == 0 else []
    for name, arguments in (("with", []), ("without", ["--without"])):
        done = subprocess.run(
            [*place, sys.executable, "-m", "tests.benchmarks.sandbox_cost", "--figures", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode == 0:
            found[name] = json.loads(done.stdout)
        else:
            print(f"{name} the sandbox nothing could be measured: {done.stderr[-400:]}")
    return found


def main() -> int:
    """0 where creating takes 25 ms at most, a warm `1+1` a tenth more at most, a subprocess 2 ms more at most."""
    found = measure()
    if len(found) < 2:
        print(found)
        return 1
    for key in found["with"]:
        on, off = found["with"][key], found["without"][key]
        print(f"{key:12}{on:9.2f} with{off:9.2f} without{on - off:+9.2f} ms{on / off:7.2f}x")
    on, off = found["with"], found["without"]
    kept = on["create_ms"] <= 25 and on["warm_ms"] <= 1.1 * off["warm_ms"] and on["spawn_ms"] <= off["spawn_ms"] + 2
    return 0 if kept else 1


if __name__ == "__main__":
    if "--figures" in sys.argv:
        if "--without" in sys.argv:
            from tests.sandbox.host import change_layers

            change_layers(NONE)
        print(json.dumps(asyncio.run(figures())))
    else:
        sys.exit(main())
