"""Host: what the container uses of its CPU, memory, disk and network, and how much of each it may use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from monitoring.readings import Reading

_UNLIMITED = 1 << 60
"""Version 1 of cgroups says "no limit" with a number near 2^63."""


class Host:
    """Reads the control group of this process, version 2 or 1, and /proc where that says nothing.

    Sources: the kernel's documents cgroup-v2 (cpu.stat, cpu.max, memory.current, memory.max, memory.stat) and
    cgroup-v1 (cpuacct, cpu, memory), proc(5). `cgroup` and `proc` are the folders to read; `sessions` and `store` lie
    on the disks to measure, that of the sessions' folders and that of their snapshots, if there are any.
    """

    def __init__(
        self,
        sessions: Path,
        store: Path | None = None,
        *,
        cgroup: Path = Path("/sys/fs/cgroup"),
        proc: Path = Path("/proc"),
    ) -> None:
        self._sessions = sessions
        self._store = store
        self._cgroup = cgroup
        self._proc = proc

    def cpu_seconds(self) -> float | None:
        """CPU time used since the container (or the machine) started, seconds."""
        if (used := _keyed(self._find("cpu.stat"), "usage_usec")) is not None:
            return used / 1e6
        if (nanoseconds := _number(self._find("cpuacct/cpuacct.usage", "cpuacct.usage"))) is not None:
            return nanoseconds / 1e9
        ticks = (self._proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
        return sum(int(tick) for i, tick in enumerate(ticks) if i not in (3, 4)) / os.sysconf("SC_CLK_TCK")

    def cpu_limit(self) -> float:
        """CPUs that may be used at once."""
        machine = float(len(os.sched_getaffinity(0)))
        quota, period = _pair(self._find("cpu.max"))
        if quota is None:
            quota = _number(self._find("cpu/cpu.cfs_quota_us"))
            period = _number(self._find("cpu/cpu.cfs_period_us"))
        return min(machine, quota / period) if quota and period and quota > 0 else machine

    def memory_bytes(self) -> float:
        """Memory in use without the page cache that the kernel can drop at once."""
        for current, key in (
            ("memory.current", "inactive_file"),
            ("memory/memory.usage_in_bytes", "total_inactive_file"),
        ):
            used = _number(self._find(current))
            if used is not None:
                cache = _keyed(self._find(f"{current.rpartition('/')[0]}/memory.stat".lstrip("/")), key) or 0
                return max(0.0, used - cache)
        info = self._meminfo()
        return info["MemTotal"] - info["MemAvailable"]

    def memory_limit(self) -> float:
        """Memory that may be used, bytes."""
        machine = self._meminfo()["MemTotal"]
        for name in ("memory.max", "memory/memory.limit_in_bytes"):
            limit = _number(self._find(name))
            if limit is not None and limit < _UNLIMITED:
                return min(machine, limit)
        return machine

    def network_bytes(self) -> dict[str, float]:
        """Bytes received and sent over all interfaces but loopback."""
        received = sent = 0
        for line in (self._proc / "net/dev").read_text().splitlines()[2:]:
            name, _, numbers = line.partition(":")
            if name.strip() != "lo":
                columns = numbers.split()
                received, sent = received + int(columns[0]), sent + int(columns[8])
        return {"received": float(received), "sent": float(sent)}

    def readings(self, prefix: str) -> Iterator[Reading]:
        """All of it as metrics."""
        yield Reading(
            f"{prefix}_container_cpu_seconds", "CPU time that the container used.", self.cpu_seconds, "counter"
        )
        yield Reading(f"{prefix}_container_cpu_limit", "CPUs that the container may use at once.", self.cpu_limit)
        yield Reading(
            f"{prefix}_container_memory_bytes",
            "Memory that the container uses, droppable page cache left out.",
            self.memory_bytes,
        )
        yield Reading(f"{prefix}_container_memory_limit_bytes", "Memory that the container may use.", self.memory_limit)
        yield from _disk(f"{prefix}_disk", self._sessions, "the sessions' folders are")
        if self._store is not None:
            yield from _disk(f"{prefix}_store_disk", self._store, "the snapshots are")
        yield Reading(
            f"{prefix}_network_bytes",
            "Bytes that passed the network, loopback left out.",
            self.network_bytes,
            "counter",
            "direction",
        )

    def _find(self, *names: str) -> Path | None:
        """The first of these files that exists, in the root of the hierarchy: a container sees its own group there."""
        return next((self._cgroup / name for name in names if (self._cgroup / name).is_file()), None)

    def _meminfo(self) -> dict[str, float]:
        lines = (self._proc / "meminfo").read_text().splitlines()
        return {
            name: float(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines) if rest
        }


def _disk(name: str, folder: Path, what: str) -> Iterator[Reading]:
    yield Reading(f"{name}_free_bytes", f"Free space where {what}.", lambda: float(shutil.disk_usage(folder).free))
    yield Reading(f"{name}_bytes", f"Size of the disk where {what}.", lambda: float(shutil.disk_usage(folder).total))


def _number(path: Path | None) -> float | None:
    text = path.read_text().strip() if path else ""
    return float(text) if text.lstrip("-").isdigit() else None


def _pair(path: Path | None) -> tuple[float | None, float | None]:
    """cpu.max: quota and period in microseconds; the quota is `max` where there is none."""
    parts = path.read_text().split() if path else []
    if len(parts) != 2 or not parts[0].isdigit():
        return None, None
    return float(parts[0]), float(parts[1])


def _keyed(path: Path | None, key: str) -> float | None:
    lines = path.read_text().splitlines() if path else []
    return next((float(line.split()[1]) for line in lines if line.split()[:1] == [key]), None)
