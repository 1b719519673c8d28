"""What a running Space does so that its memory stays where it was."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from executor.events import Bus, Event, Fault, SessionMeasured
from space import upkeep
from tests.e2e.running import ROOT

MANY_THREADS = """
import ctypes, gc, json, re, sys, threading
from space import upkeep

if sys.argv[1] == "one":
    assert upkeep.keep_one_heap()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
together = threading.Barrier(12)

def work():
    together.wait()
    for _ in range(100):
        libc.malloc(1000)
    together.wait()

threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
# an arena of glibc's is reserved as a mapping of 64 MiB, of which only the first part can be written
maps = [re.match("([0-9a-f]+)-([0-9a-f]+) (....)", line).groups() for line in open("/proc/self/maps")]
spans = [(int(start, 16), int(end, 16), mode) for start, end, mode in maps]
arenas = [
    start
    for (start, middle, mode), (tail, end, tail_mode) in zip(spans, spans[1:])
    if (mode, tail_mode) == ("rw-p", "---p") and middle == tail and end - start == 64 << 20 and start % (64 << 20) == 0
]
before = len(gc.get_objects())
apart = upkeep.set_start_apart()
print(json.dumps({"arenas": len(arenas), "before": before, "apart": apart, "after": len(gc.get_objects())}))
"""


def figures(heaps: str) -> dict[str, int]:
    """What a process of its own found, as neither of the two can be undone."""
    command = [sys.executable, "-c", MANY_THREADS, heaps]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    child = subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True, text=True, timeout=60)
    return json.loads(child.stdout)


def test_threads_share_one_heap() -> None:
    assert figures("many")["arenas"] > 1, "without it there are many, or this test shows nothing"
    assert figures("one")["arenas"] == 0


def test_what_is_there_at_the_start_is_out_of_the_collectors_sight() -> None:
    found = figures("one")
    assert found["apart"] > 0.9 * found["before"] and found["after"] < 0.1 * found["before"]


FREE_BETWEEN = """
import json
from space import upkeep

def dirty():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty:"))

upkeep.keep_one_heap()
pieces = [bytearray(b"x") * 9_000 for _ in range(10_000)]
full = dirty()
kept = pieces[::10]  # of which the heap cannot shrink
del pieces
free = dirty()
upkeep.give_back()
print(json.dumps({"full": full, "free": free, "given back": dirty()}))
"""


def test_what_is_free_between_what_is_in_use_is_given_back() -> None:
    child = subprocess.run(
        [sys.executable, "-c", FREE_BETWEEN], cwd=ROOT, check=True, capture_output=True, text=True, timeout=60
    )
    kib = json.loads(child.stdout)
    assert kib["free"] > 0.9 * kib["full"], "it went by itself, or this test shows nothing"
    assert kib["given back"] < 0.6 * kib["full"]


async def given_back(monkeypatch: pytest.MonkeyPatch, say: Callable[[Bus], None], **seconds: float) -> int:
    """How often memory was given back within a second of a clock of its own, beside what `say` says every 20 ms."""
    count, now = 0, 0.0

    def give_back() -> None:
        nonlocal count
        count += 1

    monkeypatch.setattr(upkeep, "give_back", give_back)
    monkeypatch.setattr(upkeep, "time", SimpleNamespace(monotonic=lambda: now))
    for name, value in {"LOOK_EVERY": 0.01, "IDLE_AFTER": 0.3, "ALWAYS_AFTER": 60.0, **seconds}.items():
        monkeypatch.setattr(upkeep, name, value)
    bus = Bus(linger=0)
    task = asyncio.create_task(upkeep.give_back_when_idle(bus))
    for _ in range(50):
        say(bus)
        assert await asyncio.to_thread(bus.flush), "what was said is heard before the clock goes on"
        now += 0.02
        await asyncio.sleep(0.02)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    return count


def work(bus: Bus) -> None:
    bus.publish(Fault(where="test", detail="something happens"))


def measure(bus: Bus) -> None:
    event: Event = SessionMeasured(session_id="s", owner="o", memory=1, processes=1, folder_bytes=1)
    bus.publish(event)


async def test_memory_is_given_back_once_when_the_work_is_done_and_not_during_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert await given_back(monkeypatch, lambda bus: None) == 1
    assert await given_back(monkeypatch, measure) == 1
    assert await given_back(monkeypatch, work) == 0
    assert await given_back(monkeypatch, work, ALWAYS_AFTER=0.1) > 1
