"""CPU that monitoring costs, and bytes of log, per execution: `python -m tests.benchmarks.monitoring_overhead`.

First with real executions of `print(1+1)` in one session, monitoring on and off in turns; then with events alone, at
several paces: at few executions a second each pays for waking the subscriber's thread and finds the caches cold, at
many they share it. CPU time is the server process's, threads included.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import monitoring
from executor import Executor, events
from executor.events import Bus
from executor.local import LocalBackend
from executor.settings import Settings
from monitoring import journal
from tests.benchmarks.timing import UNCAPPED
from tests.monitoring.script import called, execution, opened

OWNERS = 50
"""So many owners that flood control has nothing to hold back."""


def publish(bus: Bus, count: int, *, per_second: float) -> float:
    """CPU seconds of `count` executions, evenly spaced, until the last one is delivered."""
    began, start = time.process_time(), time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, start + number / per_second - time.monotonic()))
        for event in execution(number, owner=f"owner-{number % OWNERS}", session_id=f"session-{number % OWNERS}"):
            bus.publish(event)
    bus.flush(timeout=60)
    return time.process_time() - began


def compare(count: int, rounds: int, per_second: float) -> tuple[float, float]:
    """(µs of CPU per execution, bytes of log per execution)."""
    costs, size = [], 0
    with TemporaryDirectory() as folder:
        for turn in range(rounds):
            off, on = Bus(), Bus()
            path = Path(folder) / f"{turn}.log"
            settings = Settings(
                log_format="json", access_key="an-access-key", log_salt="salt", metrics_key="metrics-key"
            )
            with path.open("w") as stream:
                watched = monitoring.subscribe(on, settings, monitoring.configure(settings, stream=stream))
                for number in range(OWNERS):
                    on.publish(opened(session_id=f"session-{number}", owner=f"owner-{number}"))
                publish(on, 50, per_second=1000)
                before = path.stat().st_size
                gc.collect()
                without = publish(off, count, per_second=per_second)
                gc.collect()
                costs.append((publish(on, count, per_second=per_second) - without) / count * 1e6)
                size = path.stat().st_size - before
                watched.close()
    return statistics.median(costs), size / count


async def executed(executor: Executor, session_id: str, count: int) -> float:
    """CPU seconds of this process for `count` real executions, one after the other, until all is delivered."""
    began = time.process_time()
    for number in range(count):
        request_id = f"{number:016}"
        with events.during(request_id, "execute_python_code"):
            await executor.execute("print(1+1)", language="python", owner="owner-0", session_id=session_id)
        executor.bus.publish(called(request_id=request_id, session_id=session_id))
    await asyncio.to_thread(executor.bus.flush, 60)
    return time.process_time() - began


async def compare_real(count: int, rounds: int) -> tuple[float, float]:
    """(µs of CPU per execution without monitoring, how many more with it)."""
    journal._EXECUTIONS = 10**9  # one owner alone would be held back by flood control
    on, off = [], []
    with TemporaryDirectory() as folder:
        settings = Settings(
            log_format="json",
            access_key="an-access-key",
            log_salt="salty",
            work_dir=folder,
            allow_weak_sandbox=True,
            **UNCAPPED,
        )
        with (Path(folder) / "log").open("w") as stream:
            handler = monitoring.configure(settings, stream=stream)
            async with Executor(settings, backend=LocalBackend(settings)) as executor:
                session = await executor.create_session(owner="owner-0")
                await executed(executor, session.id, count)
                for _ in range(rounds):
                    off.append(await executed(executor, session.id, count))
                    watched = monitoring.subscribe(executor.bus, settings, handler)
                    executor.bus.publish(opened(session_id=session.id))
                    on.append(await executed(executor, session.id, count))
                    await asyncio.to_thread(watched.close)
                assert handler.held_back == 0
    without = statistics.median(off)
    return without / count * 1e6, (statistics.median(on) - without) / count * 1e6


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    without, more = asyncio.run(compare_real(200, options.rounds * 2))
    print(f"real executions: {without:.0f} µs CPU of the server without monitoring, {more:.1f} µs more with it")
    for per_second, count in ((20.0, 60), (100.0, 300), (1000.0, 3000)):
        cost, size = compare(count, options.rounds, per_second)
        day = size * 86_400 / 1e6
        print(f"{per_second:6.0f}/s: {cost:6.1f} µs CPU, {size:5.0f} bytes of log per execution, {day:.1f} MB a day")


if __name__ == "__main__":
    main()
