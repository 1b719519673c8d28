"""Nine sessions at work, first alone, then beside one that attacks: `python -m tests.benchmarks.neighbours`."""

import asyncio
import sys
import time

from executor import Executor, Settings
from tests.benchmarks.timing import UNCAPPED, p50, p99

ATTACKS = [
    ("bash", "while true; do (sleep 0.01 &) ; done"),
    ("python", "import threading\nfor _ in range(200): threading.Thread(target=lambda: sum(range(10**9))).start()"),
    ("python", "data = []\nwhile True: data.append(bytearray(10**7))"),
    ("python", "while True: print('x' * 10**5)"),
    ("python", "import os\nwhile True:\n    open('f', 'wb').write(os.urandom(10**7)); os.remove('f')"),
    ("javascript", "while (true) {}"),
]


async def work(executor: Executor, session: str, seconds: float) -> list[float]:
    """Milliseconds of cells with a known answer, one every 20 ms."""
    found = []
    until = time.monotonic() + seconds
    number = 0
    while time.monotonic() < until:
        number += 1
        began = time.perf_counter()
        result = await executor.execute(f"print({number} * 2)", language="python", owner="w", session_id=session)
        found.append((time.perf_counter() - began) * 1e3)
        assert result.stdout == f"{number * 2}\n", result
        await asyncio.sleep(0.02)
    return found


async def main() -> int:
    """0 where the p99 of the neighbours at most trebles."""
    settings = Settings(
        session_memory_mb=512,
        security_policy="off",
        allow_weak_sandbox=True,
        **UNCAPPED,
        max_sessions=20,
    )
    async with Executor(settings) as executor:
        workers = [(await executor.create_session(owner="w")).id for _ in range(9)]

        async def together(seconds: float) -> list[float]:
            lists = await asyncio.gather(*(work(executor, each, seconds) for each in workers))
            return [value for found in lists for value in found]

        await together(2)
        quiet = await together(10)
        worst = 0.0
        print(f"{'quiet':14} p50 {p50(quiet):7.2f} ms   p99 {p99(quiet):7.2f} ms")
        for language, code in ATTACKS:
            session = await executor.create_session(owner="mallory")
            running = asyncio.create_task(
                executor.execute(code, language=language, owner="mallory", session_id=session.id, timeout=6)
            )
            loud = await together(5)
            await executor.close_session(session.id, owner="mallory")
            result = await running
            worst = max(worst, p99(loud) / p99(quiet))
            print(
                f"{language:14} p50 {p50(loud):7.2f} ms   p99 {p99(loud):7.2f} ms   {p99(loud) / p99(quiet):5.2f}x   "
                f"{result.status}: {code[:50]!r}"
            )
    return 0 if worst <= 3 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
