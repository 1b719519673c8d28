"""Host: what this machine's control group says, and both versions of control groups as the kernel writes them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import psutil
import pytest

from monitoring.host import Host
from monitoring.readings import Reading, Readings

GIB = 1024**3


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    (folder / "net").mkdir(parents=True)
    (folder / "stat").write_text("cpu  1000 0 500 90000 700 0 10 0 0 0\ncpu0 1 2 3 4\n")
    (folder / "meminfo").write_text("MemTotal:       16777216 kB\nMemFree: 1 kB\nMemAvailable:   12582912 kB\nX:\n")
    (folder / "net/dev").write_text(
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n"
        "    lo: 999999 1 0 0 0 0 0 0 999999 1 0 0 0 0 0 0\n"
        "  eth0: 1000 10 0 0 0 0 0 0 200 5 0 0 0 0 0 0\n"
        "  eth1:50 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\n"
    )
    return folder


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_version_2_of_control_groups_is_read(tmp_path: Path, proc: Path) -> None:
    cgroup = write(
        tmp_path / "cgroup",
        {
            "cpu.stat": "usage_usec 2500000\nuser_usec 2000000\nsystem_usec 500000\n",
            "cpu.max": "50000 100000\n",
            "memory.current": f"{2 * GIB}\n",
            "memory.max": f"{4 * GIB}\n",
            "memory.stat": f"anon 5\nfile 6\ninactive_file {GIB}\n",
        },
    )
    host = Host(tmp_path, cgroup=cgroup, proc=proc)
    assert (host.cpu_seconds(), host.cpu_limit()) == (2.5, 0.5)
    assert (host.memory_bytes(), host.memory_limit()) == (GIB, 4 * GIB)
    write(cgroup, {"cpu.max": "max 100000\n", "memory.max": "max\n"})
    assert host.cpu_limit() == len(os.sched_getaffinity(0))
    assert host.memory_limit() == 16 * GIB


def test_version_1_of_control_groups_is_read(tmp_path: Path, proc: Path) -> None:
    cgroup = write(
        tmp_path / "cgroup",
        {
            "cpuacct/cpuacct.usage": "2500000000\n",
            "cpu/cpu.cfs_quota_us": "25000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "memory/memory.usage_in_bytes": f"{3 * GIB}\n",
            "memory/memory.limit_in_bytes": f"{8 * GIB}\n",
            "memory/memory.stat": f"cache 5\ntotal_inactive_file {GIB}\n",
        },
    )
    host = Host(tmp_path, cgroup=cgroup, proc=proc)
    assert (host.cpu_seconds(), host.cpu_limit()) == (2.5, 0.25)
    assert (host.memory_bytes(), host.memory_limit()) == (2 * GIB, 8 * GIB)
    write(cgroup, {"cpu/cpu.cfs_quota_us": "-1\n", "memory/memory.limit_in_bytes": "9223372036854771712\n"})
    assert host.cpu_limit() == len(os.sched_getaffinity(0))
    assert host.memory_limit() == 16 * GIB


def test_without_control_groups_the_machine_itself_is_read(tmp_path: Path, proc: Path) -> None:
    host = Host(tmp_path, cgroup=tmp_path / "none", proc=proc)
    assert host.cpu_seconds() == 1510 / os.sysconf("SC_CLK_TCK")
    assert (host.memory_bytes(), host.memory_limit()) == (4 * GIB, 16 * GIB)
    assert host.network_bytes() == {"received": 1050.0, "sent": 207.0}


def test_this_machine_has_plausible_figures(tmp_path: Path) -> None:
    host = Host(tmp_path)
    before = host.cpu_seconds()
    busy_until = time.process_time() + 0.3
    while time.process_time() < busy_until:
        pass
    after = host.cpu_seconds()
    assert before is not None
    assert after is not None
    assert after - before > 0.2
    assert 0 < host.cpu_limit() <= (os.cpu_count() or 1)
    assert psutil.Process().memory_info().rss / 4 < host.memory_bytes() < host.memory_limit()
    assert host.memory_limit() <= psutil.virtual_memory().total
    assert set(host.network_bytes()) == {"received", "sent"}


def test_each_disk_has_figures_of_its_own(tmp_path: Path) -> None:
    def figures(host: Host) -> dict[str, float]:
        return {m.name: m.samples[0].value for m in Readings(host.readings("x")).collect() if "disk" in m.name}

    both = figures(Host(tmp_path, Path("/dev/shm")))  # another disk than that of temporary folders
    assert both["x_disk_bytes"] == shutil.disk_usage(tmp_path).total
    assert both["x_store_disk_bytes"] == shutil.disk_usage("/dev/shm").total
    assert 0 < both["x_disk_free_bytes"] <= both["x_disk_bytes"]
    assert 0 < both["x_store_disk_free_bytes"] <= both["x_store_disk_bytes"]
    assert set(figures(Host(tmp_path))) == {"x_disk_bytes", "x_disk_free_bytes"}


def test_what_cannot_be_read_is_left_out_and_the_rest_is_given(tmp_path: Path) -> None:
    host = Host(tmp_path / "gone", cgroup=tmp_path / "none", proc=tmp_path / "none")
    collected = {m.name for m in Readings([*host.readings("x"), Reading("x_fine", "Fine.", lambda: 1.0)]).collect()}
    assert "x_fine" in collected
    assert "x_disk_free_bytes" not in collected
