"""Sessions opened, used and closed in a loop: what is left over. `python -m tests.benchmarks.many_sessions 1000`."""

import asyncio
import os
import sys
import time

import psutil

from executor import Executor, Settings
from tests.benchmarks.timing import UNCAPPED


def picture(me: psutil.Process, sessions: str) -> dict[str, float]:
    """Processes, descriptors and memory of server and zygote, and folders."""
    children = me.children(recursive=True)
    zygote = me.children()[0]
    return {
        "processes": len(children),
        "descriptors": me.num_fds(),
        "zygote_descriptors": zygote.num_fds(),
        "folders": len(os.listdir(sessions)),
        "server_rss_mib": me.memory_info().rss / 2**20,
        "zygote_rss_mib": zygote.memory_info().rss / 2**20,
    }


async def main(count: int) -> int:
    """0 where nothing is left over."""
    me = psutil.Process()
    settings = Settings(spare_sessions=0, allow_weak_sandbox=True, **UNCAPPED, security_policy="off")
    async with Executor(settings) as executor:
        sessions = str(executor._backend._sessions)

        async def one(number: int) -> None:
            session = await executor.create_session(owner="loop")
            language, code = [
                ("python", "import os; open('f', 'w').write('x'); print(6 * 7)"),
                ("bash", "sleep 100 & echo 42"),
                ("python", "import subprocess; subprocess.Popen(['sleep', '100'], start_new_session=True); print(42)"),
                ("python", "print(42)"),
            ][number % 4]
            result = await executor.execute(code, language=language, owner="loop", session_id=session.id)
            assert result.stdout == "42\n", result
            await executor.close_session(session.id, owner="loop")

        for number in range(20):
            await one(number)
        await asyncio.sleep(2)
        before = picture(me, sessions)
        began = time.monotonic()
        for number in range(count):
            await one(number)
        seconds = time.monotonic() - began
        await asyncio.sleep(3)
        after = picture(me, sessions)
    print(f"{count} sessions opened, used and closed in {seconds:.1f} s ({seconds / count * 1e3:.1f} ms each)")
    for key, value in before.items():
        print(f"  {key:22}{value:10.1f} before{after[key]:10.1f} after")
    clean = all(after[key] <= before[key] for key in ("processes", "descriptors", "zygote_descriptors", "folders"))
    return 0 if clean and after["server_rss_mib"] - before["server_rss_mib"] < 10 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]))))
