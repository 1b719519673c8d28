"""Loop: how late the event loop is, measured from within."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL = 0.5
"""Seconds between two looks."""


async def watch_lag(observe: Callable[[float], None], *, interval: float = INTERVAL) -> None:
    """Give `observe` the seconds by which each sleep of `interval` seconds was overslept, until cancelled.

    Whatever holds the loop (a blocking call, a large body to parse) makes every other task exactly that late, too.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        observe(max(0.0, loop.time() - due))
