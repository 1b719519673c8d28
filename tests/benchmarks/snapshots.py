"""Snapshots beside what people do without them: `python -m tests.benchmarks.snapshots`.

What a user waits for while a session is saved, and what saving, parking and waking cost, at 1 MB and 100 MB of state.
Beside it what a notebook's kernel has instead: a start, and running the cells again (here: making the same array).
"""

import asyncio
import sys
import tempfile
import time

from executor import Executor, Settings
from executor.events import SessionRestored, SnapshotTaken
from tests.benchmarks import kernels
from tests.benchmarks.timing import UNCAPPED, p50

SIZES = {"1 MB": 131_072, "100 MB": 13_107_200}
ROUNDS = {"1 MB": 12, "100 MB": 4}
BESIDE = "{}: the cell that comes while a snapshot begins"
FIRST_CALL = "{}: first call after it (wake and run)"
WAKE = "{}: wake"
LIMITS = {BESIDE.format("1 MB"): 25.0, BESIDE.format("100 MB"): 25.0, WAKE.format("1 MB"): 50.0}
"""Milliseconds that were promised."""


async def measure() -> dict[str, float]:
    """Milliseconds, by name."""
    figures: dict[str, float] = {}
    for label, floats in SIZES.items():
        with tempfile.TemporaryDirectory(dir="/var/tmp") as kept:
            figures |= await _of(kept, label, floats)
    return figures


async def _of(kept: str, label: str, floats: int) -> dict[str, float]:
    settings = Settings(state_dir=kept, snapshot_after=3600, snapshot_every=3600, allow_weak_sandbox=True, **UNCAPPED)
    taken, restored = [], []

    def note(event: object) -> None:
        if isinstance(event, SnapshotTaken):
            taken.append(event.seconds * 1e3)
        elif isinstance(event, SessionRestored):
            restored.append(event.seconds * 1e3)

    async with Executor(settings) as executor:
        unsubscribe = executor.bus.subscribe(note)
        table = executor._up.keeper.table
        caller = {"owner": "bench", "conversation": "1"}

        async def run(code: str) -> float:
            began = time.perf_counter()
            result = await executor.execute(code, language="python", **caller)
            assert result.success, result
            return (time.perf_counter() - began) * 1e3

        await run(f"import numpy as np; x = np.random.default_rng(1).random({floats})")
        session = table.live()[0]
        quiet = [await run("1+1") for _ in range(20)]
        beside, parks, wakes = [], [], []
        for _ in range(ROUNDS[label]):
            await run("x[0] += 1")
            saving = asyncio.create_task(executor._up.snapshots.take(session))
            await asyncio.sleep(0)
            # the cell that comes while the interpreter copies itself
            beside.append(await run("1+1"))
            assert await saving
            await run("x[0] += 1")
            began = time.perf_counter()
            assert await executor._up.parking.park(session, "idle")
            assert session.leaving is not None
            await session.leaving
            parks.append((time.perf_counter() - began) * 1e3)
            wakes.append(await run("x[0]"))
        unsubscribe()
        return {
            f"{label}: a cell, quiet": p50(quiet),
            BESIDE.format(label): p50(beside),
            f"{label}: snapshot, in the background": p50(taken),
            f"{label}: park (snapshot, trial, end)": p50(parks),
            FIRST_CALL.format(label): p50(wakes),
            WAKE.format(label): p50(restored),
        }


def report(figures: dict[str, float], kernel_start: float) -> int:
    """Print the figures beside milliseconds of a kernel's start; how many are over their limits."""
    missed = 0
    for name, value in figures.items():
        limit = LIMITS.get(name)
        missed += limit is not None and value > limit
        print(f"  {name:58}{value:10.1f} ms{f', limit {limit:g}' if limit else ''}")
    print(f"  {'ipykernel: a start, with nothing of what was there':58}{kernel_start:10.1f} ms")
    for size in SIZES:
        ratio = kernel_start / figures[FIRST_CALL.format(size)]
        print(f"  {f'first call after parking {size}, against a start of ipykernel':58}{ratio:10.1f} x")
    return missed


async def main() -> int:
    """0 where every limit is kept."""
    figures = await measure()
    return 1 if report(figures, (await kernels.measure())["create_ms"]) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
