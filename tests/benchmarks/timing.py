"""Timing: durations of repeated work, and their percentiles."""

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Final

UNCAPPED: Final = {
    "owner_sessions": 0,
    "owner_memory_mb": 0,
    "owner_disk_mb": 0,
    "owner_concurrent": 0,
    "owner_calls_per_minute": 0,
}
"""Settings without which a benchmark, one user to the executor, would measure the caps of one user."""


async def times(work: Callable[[], Awaitable[object]], count: int) -> list[float]:
    """Milliseconds of each of `count` runs."""
    found = []
    for _ in range(count):
        began = time.perf_counter()
        await work()
        found.append((time.perf_counter() - began) * 1e3)
    return found


def p50(values: list[float]) -> float:
    """The median."""
    return statistics.median(values)


def p99(values: list[float]) -> float:
    """The 99th percentile, the largest value where there are fewer than a hundred."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]


def pss(pid: int) -> float:
    """Proportional set size of a process, MiB: shared pages count by their share."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return sum(int(line.split()[1]) for line in file if line.startswith("Pss:")) / 1024
