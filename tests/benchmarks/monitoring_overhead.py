"""CPU that monitoring costs, and bytes of log, per execution: `python -m tests.benchmarks.monitoring_overhead`.

The same events are published with monitoring on and off, in turns; CPU time is the whole process's, threads included.
The pace matters: at one execution a second each pays for waking the subscriber's thread, at a hundred many share it.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import monitoring
from executor.events import Bus
from executor.settings import Settings
from tests.monitoring.script import execution, opened

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


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    for per_second, count in ((20.0, 60), (100.0, 300), (1000.0, 3000)):
        cost, size = compare(count, options.rounds, per_second)
        day = size * 86_400 / 1e6
        print(
            f"{per_second:6.0f}/s: {cost:6.1f} µs CPU, {size:5.0f} bytes of log per execution, {day:.1f} MB a day at 1/s"
        )


if __name__ == "__main__":
    main()
