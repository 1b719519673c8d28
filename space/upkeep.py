"""Upkeep: how this process keeps its memory over weeks: what glibc's allocator and Python's collector are told.

With their defaults a server of many small requests grows by a third within the first half hour, though it holds no more
than before: every thread gets a heap of its own, large pieces come to lie between small ones, and what refers to itself
is only found after every fourth object is new.
"""

from __future__ import annotations

import ctypes
import gc

# mallopt(3), malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_LARGE = 256 * 1024
"""Bytes from which on a piece is mapped by itself, and given back when it is let go of."""
_SPARE = 1024 * 1024
"""Bytes of free heap that are kept."""


def keep_one_heap() -> bool:
    """Have all threads share one heap; before there are any. False where the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # one heap is enough for threads that have to wait for the interpreter's lock anyway
    told = [mallopt(_M_ARENA_MAX, 1), mallopt(_M_MMAP_THRESHOLD, _LARGE), mallopt(_M_TRIM_THRESHOLD, _SPARE)]
    return all(told)


def set_start_apart() -> int:
    """Take everything that is there now out of the collector's sight: modules and the page stay to the end anyway.

    A full collection then looks at the few thousand objects of calls and takes milliseconds, where it stopped the event
    loop for 150 ms, and so it comes when they are many and not when they are a quarter of all. Returns the number of
    objects set apart.
    """
    gc.collect()
    gc.freeze()
    return gc.get_freeze_count()
