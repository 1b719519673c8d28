"""Upkeep: how this process keeps its memory over weeks: what glibc's allocator and Python's collector are told.

With their defaults a server of many small requests grows by a third within the first half hour, though it holds no more
than before: every thread gets a heap of its own, large pieces come to lie between small ones, and what refers to itself
is only found after every fourth object is new. What is free between pieces in use stays with the process until it is
asked for: so it is given back, in moments when nobody is at work.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import time

from executor.events import Bus, Event, SessionMeasured

# mallopt(3), malloc.h
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8

_LARGE = 1024 * 1024
"""Bytes from which on a piece is mapped by itself, and given back when it is let go of."""
_SPARE = 4 * 1024 * 1024
"""Bytes of free heap that are kept."""

LOOK_EVERY = 1.0
IDLE_AFTER = 2.0
"""Seconds without an event after which nobody is at work."""
ALWAYS_AFTER = 300.0
"""Seconds after which memory is given back though somebody is: it stops the event loop for about 10 ms, for more where
thousands of sessions are known."""


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


def give_back() -> None:
    """Let go of what nothing refers to any more, and of free pages; all threads wait for that."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # not glibc, whose heap this is about


async def give_back_when_idle(bus: Bus) -> None:
    """Give memory back each time that the work of a while is done, until cancelled."""
    used_at, given_at, used = time.monotonic(), time.monotonic(), True

    def heard(event: Event) -> None:
        nonlocal used_at, used
        if not isinstance(event, SessionMeasured):  # which comes by the clock
            used_at, used = time.monotonic(), True

    unsubscribe = bus.subscribe(heard)
    try:
        while True:
            await asyncio.sleep(LOOK_EVERY)
            now = time.monotonic()
            if used and (now - used_at >= IDLE_AFTER or now - given_at >= ALWAYS_AFTER):
                give_back()
                used, given_at = False, now
    finally:
        unsubscribe()
