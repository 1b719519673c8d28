"""Our sessions, measured through the executor's public face."""

import asyncio
import time

import psutil

from executor import Executor, Settings
from tests.benchmarks.timing import UNCAPPED, p50, p99, pss, times

PLOT = "plt.plot([1, 3, 2]); plt.show()"


async def measure(*, policy: str = "auto") -> dict[str, float]:
    """Create (with one kept ready, as is the default, and forked on demand), warm `1+1`, first plot: milliseconds;
    idle PSS of all processes of a session (MiB), executions a second in 8 sessions."""
    figures: dict[str, float] = {}
    settings = Settings(security_policy=policy, max_sessions=100, allow_weak_sandbox=True, **UNCAPPED)
    async with Executor(settings) as executor:

        async def run(session, code, language="python"):
            result = await executor.execute(code, language=language, owner="bench", session_id=session.id)
            assert result.success, result
            return result

        zygotes = {p.pid for p in psutil.Process().children()}
        sessions = []

        async def create():
            sessions.append(await executor.create_session(owner="bench"))

        await create()
        # back to back: each waits for a fork, as the one that is kept ready is taken by the one before
        found = await times(create, 20)
        figures["create_forked_ms"], figures["create_forked_p99_ms"] = p50(found), p99(found)
        found = []
        for _ in range(10):
            await asyncio.sleep(0.2)
            found += await times(create, 1)
        figures["create_ms"] = p50(found)

        tree = [p for pid in zygotes for p in psutil.Process(pid).children(recursive=True)]
        figures["idle_pss_mib"] = sum(pss(p.pid) for p in tree) / len(sessions)
        figures["idle_processes"] = len(tree) / len(sessions)

        session = sessions[0]
        for _ in range(20):
            await run(session, "1+1")
        found = await times(lambda: run(session, "1+1"), 500)
        figures["warm_ms"], figures["warm_p99_ms"] = p50(found), p99(found)

        fresh = iter(sessions[1:])
        figures["first_plot_ms"] = p50(await times(lambda: run(next(fresh), PLOT), 8))
        figures["next_plot_ms"] = p50(await times(lambda: run(session, PLOT), 8))

        for language, code in (("javascript", "1+1"), ("bash", "echo 2")):
            began = time.perf_counter()
            await run(session, code, language)
            figures[f"{language}_first_ms"] = (time.perf_counter() - began) * 1e3
            figures[f"{language}_warm_ms"] = p50(await times(lambda: run(session, code, language), 200))  # noqa: B023

        async def many(session, count):
            for _ in range(count):
                await run(session, "1+1")

        eight = sessions[1:9]
        began = time.perf_counter()
        await asyncio.gather(*(many(session, 200) for session in eight))
        figures["throughput_8"] = 8 * 200 / (time.perf_counter() - began)
    return figures
