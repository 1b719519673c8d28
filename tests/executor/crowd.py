"""Crowds: many tasks at once, of which some are cancelled, for whatever has a queue."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

from executor.errors import Busy


def soon(seconds: float = 30.0) -> float:
    """A moment of the clock from which queues count."""
    return time.monotonic() + seconds


async def settled() -> None:
    """Let every task go as far as it can by itself."""
    for _ in range(10):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], seconds: float = 15.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def let_loose(one: Callable[[int], Coroutine[Any, Any, None]], chance: random.Random) -> None:
    """Run `one` 300 times at once, and cancel 60 of them; each must end well, be refused or be cancelled."""
    crowd = [asyncio.create_task(one(number)) for number in range(300)]
    for task in chance.sample(crowd, 60):
        await asyncio.sleep(0.001)
        task.cancel()
    async with asyncio.timeout(60):
        ends = await asyncio.gather(*crowd, return_exceptions=True)
    assert all(end is None or isinstance(end, (Busy, asyncio.CancelledError)) for end in ends)
    assert sum(end is None for end in ends) > 100
