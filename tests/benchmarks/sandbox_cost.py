"""What the sandbox costs: the same figures with all of its layers and with none, in one run.

`python -m tests.benchmarks.sandbox_cost`; without layers it is a measurement only, there is no setting for it.
"""

import asyncio
import json
import subprocess
import sys

from executor import Executor, Settings
from tests.benchmarks.timing import p50, times

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
        Settings(spare_sessions=0, max_sessions=60, allow_weak_sandbox=True, security_policy="standard")
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
    """The figures with the sandbox and without it, each in a process of its own."""
    found = {}
    for name, arguments in (("with", []), ("without", ["--without"])):
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.sandbox_cost", "--figures", *arguments],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
        )
        if done.returncode == 0:
            found[name] = json.loads(done.stdout)
        else:
            print(
                f"{name} the sandbox nothing could be measured: as root nothing is executed there. {done.stderr[-200:]}"
            )
    return found


def main() -> None:
    """Print both."""
    found = measure()
    if "without" not in found:
        print(found)
        return
    for key in found["with"]:
        on, off = found["with"][key], found["without"][key]
        print(f"{key:12}{on:9.2f} with{off:9.2f} without{on - off:+9.2f} ms{on / off:7.2f}x")


if __name__ == "__main__":
    if "--figures" in sys.argv:
        if "--without" in sys.argv:
            from tests.sandbox.host import change_layers

            change_layers(NONE)
        print(json.dumps(asyncio.run(figures())))
    else:
        main()
