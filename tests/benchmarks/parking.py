"""Many parked sessions over few places: `python -m tests.benchmarks.parking 500 5000 20`.

Each session holds 1 MB of its own; calls come at random, and every answer is checked.
"""

import asyncio
import random
import sys
import tempfile
import time

import psutil

from executor import Executor, Settings
from executor.events import SessionRestored
from tests.benchmarks.timing import UNCAPPED, p50, p99

AT_ONCE = 4


async def main(sessions: int, calls: int, places: int) -> int:
    """0 where every answer was right and nothing was left over."""
    rng, expected, wrong, waits = random.Random(11), {}, [], []
    locks = {number: asyncio.Lock() for number in range(sessions)}
    woken = 0

    def note(event: object) -> None:
        nonlocal woken
        woken += isinstance(event, SessionRestored)

    with tempfile.TemporaryDirectory(dir="/var/tmp") as kept:
        settings = Settings(state_dir=kept, max_sessions=places, queue_wait=120, allow_weak_sandbox=True, **UNCAPPED)
        async with Executor(settings) as executor:
            unsubscribe = executor.bus.subscribe(note)

            async def call(number: int) -> None:
                async with locks[number]:
                    owner = {"owner": f"o{number}", "conversation": "1"}
                    if number not in expected:
                        code = f"import numpy as np; a = np.full(131_072, {number}.0); n = 0; print(n)"
                        expected[number] = 0
                    else:
                        expected[number] += 1
                        code = "n += 1; a[n] += n; print(n, a[0], a.sum())"
                    began = time.perf_counter()
                    result = await executor.execute(code, language="python", **owner)
                    waits.append((time.perf_counter() - began) * 1e3)
                    n = expected[number]
                    total = number * 131_072.0 + n * (n + 1) / 2
                    right = "0\n" if n == 0 else f"{n} {float(number)} {total}\n"
                    if result.stdout != right:
                        wrong.append((number, right, result.stdout, result.notices))

            order = [*range(sessions), *(rng.randrange(sessions) for _ in range(calls))]
            began = time.perf_counter()
            queue = iter(order)

            async def work() -> None:
                for number in queue:
                    await call(number)

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
            seconds = time.perf_counter() - began
            unsubscribe()
    left = psutil.Process().children(recursive=True)
    print(f"{len(order)} calls to {sessions} sessions on {places} places in {seconds:.0f} s: {len(wrong)} wrong")
    print(f"a call: p50 {p50(waits):.0f} ms, p99 {p99(waits):.0f} ms; woken {woken} times; processes left: {len(left)}")
    for item in wrong[:5]:
        print(item)
    return 1 if wrong or left else 0


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:4]]
    sys.exit(asyncio.run(main(*(given + [500, 5000, 20][len(given) :]))))
