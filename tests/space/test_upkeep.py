"""What a running Space does so that its memory stays where it was."""

import json
import os
import subprocess
import sys

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
