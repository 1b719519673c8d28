"""Many sessions that live and do nothing: what they hold. `python -m tests.benchmarks.idle_sessions 300`.

Each has run `x = 1`. Memory is the proportional set size of everything below the server, the zygote included: what is
shared counts once over all. Run as root, for others may not look into leaders.
"""

import asyncio
import os
import sys
import time
from collections import defaultdict
from pathlib import Path

import psutil

from executor import Executor, Settings
from tests.benchmarks.timing import UNCAPPED, p50, p99

CEILING = 3 * 1024
"""MiB that 300 sessions may hold together, and any lower number its part of that."""
DEADLINE = 300.0


def sizes(pid: int) -> dict[str, float]:
    """Proportional, private and page table memory of a process, MiB; nothing when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return {}
    kib = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    tables = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmPTE"))
    return {
        "pss": kib["Pss"] / 1024,
        "private": (kib["Private_Dirty"] + kib["Private_Clean"]) / 1024,
        "tables": tables / 1024,
    }


def role(process: psutil.Process, zygote: int) -> str:
    """What a process below the server is: the zygote, a leader, or a session's init or worker."""
    if process.pid == zygote:
        return "zygote"
    if process.ppid() == zygote:
        return "leader"
    inner = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "NSpid" in line)
    return "init" if inner.split()[-1] == "1" else "worker"


async def main(count: int) -> int:
    """0 where the memory stays below the ceiling and nothing is left in the end."""
    me = psutil.Process()
    settings = Settings(
        max_sessions=count,
        spare_sessions=0,
        allow_weak_sandbox=True,
        **UNCAPPED,
        security_policy="off",
    )
    creates = []
    async with Executor(settings) as executor, asyncio.timeout(DEADLINE):
        folders = executor._backend._sessions
        zygote = me.children()[0]
        before = zygote.num_fds(), me.num_fds()
        sessions = []
        for _ in range(count):
            began = time.perf_counter()
            sessions.append((await executor.create_session(owner="idle")).id)
            creates.append((time.perf_counter() - began) * 1e3)
            result = await executor.execute("x = 1", language="python", owner="idle", session_id=sessions[-1])
            assert result.success, result
        await asyncio.sleep(0.5)
        total: defaultdict[str, float] = defaultdict(float)
        by_role: defaultdict[str, list[dict[str, float]]] = defaultdict(list)
        for process in me.children(recursive=True):
            if found := sizes(process.pid):
                by_role[role(process, zygote.pid)].append(found)
                for name, value in found.items():
                    total[name] += value
        processes = len(me.children(recursive=True))
        for session in sessions:
            await executor.close_session(session, owner="idle")
        await asyncio.sleep(1)
        after = zygote.num_fds(), me.num_fds()
        left = [process.pid for process in zygote.children(recursive=True)]
        names = os.listdir(folders)
    clean = not left and not names and after <= before
    print(f"{count} idle sessions, {processes} processes: {total['pss']:.0f} MiB, {total['pss'] / count:.2f} a session")
    print(f"page tables, which no process is charged for: {total['tables']:.0f} MiB")
    for name, members in sorted(by_role.items()):
        means = {key: sum(member[key] for member in members) / len(members) for key in members[0]}
        print(f"  {name:8}{len(members):5}   " + "   ".join(f"{key} {value:6.2f}" for key, value in means.items()))
    print(f"create: p50 {p50(creates):.1f} ms, p99 {p99(creates):.1f} ms; first {p50(creates[:20]):.1f}, ", end="")
    print(f"last {p50(creates[-20:]):.1f} ms")
    print("nothing is left over" if clean else f"left over: {left} {names}, descriptors {before} became {after}")
    if (live := len(by_role["leader"])) != count:
        print(f"only {live} of {count} lived at once: the others were parked")
    return 0 if clean and live == count and total["pss"] <= CEILING * max(count, 30) / 300 else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(int(sys.argv[1]))))
