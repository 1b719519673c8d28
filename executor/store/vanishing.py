"""Vanishing: deleted sessions are watched until no listing shows anything of them any more.

A volume may show a name some time after it was deleted, and another server that is still stopping may write one more
snapshot. Until then, whatever of the session turns up is as good as deleted, and is deleted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from executor.errors import StoreFailed
from executor.store.names import Name, Order, shard_of

PAUSES = (2.0, 8.0, 50.0)
"""Seconds before each look; when the last ones show nothing, it is over."""

PATIENCE = 600.0
"""Seconds after which it is given up, and said so."""


@dataclass(slots=True)
class _Gone:
    order: Order
    since: float
    looks: int
    due: float


class Vanishing:
    """Watches the keys of deleted sessions; `remove` deletes names and says whether all of it worked."""

    def __init__(
        self,
        names: Callable[[str], Awaitable[list[Name]]],
        remove: Callable[[list[Name]], Awaitable[bool]],
        failed: Callable[[str], None],
        *,
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        self._names = names
        self._remove = remove
        self._failed = failed
        self._pauses = pauses
        self._gone: dict[str, _Gone] = {}
        self._task: asyncio.Task[None] | None = None

    def watch(self, key: str, order: Order) -> None:
        """Everything under `key` up to `order` is deleted."""
        now = time.monotonic()
        self._gone[key] = _Gone(order, now, 0, now + self._pauses[0])
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())

    def order(self, key: str) -> Order | None:
        """Up to where a key is deleted, as long as it is watched."""
        gone = self._gone.get(key)
        return gone.order if gone else None

    def remains(self, names: list[Name]) -> list[Name]:
        """Those of `names` that are not deleted."""
        return [name for name in names if (order := self.order(name.key)) is None or name.order > order]

    async def aclose(self) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _look(self) -> None:
        while self._gone:
            now = time.monotonic()
            due = [key for key, gone in self._gone.items() if gone.due <= now]
            for shard in sorted({shard_of(key) for key in due}):
                keys = {key for key in due if shard_of(key) == shard}
                await self._clear(shard, keys)
            if self._gone:
                await asyncio.sleep(max(0.01, min(gone.due for gone in self._gone.values()) - time.monotonic()))

    async def _clear(self, shard: str, keys: set[str]) -> None:
        left: list[Name] | None
        try:
            left = [name for name in await self._names(shard) if name.key in keys]
        except StoreFailed:  # look again later
            left = None
        for key in keys:
            gone = self._gone.get(key)
            if gone is None:
                continue
            mine = [name for name in left or () if name.key == key and name.order <= gone.order]
            worked = left is not None and await self._remove(mine)
            now = time.monotonic()
            # from the start again after each thing that turned up
            gone.looks = gone.looks + 1 if worked and not mine else min(gone.looks, 1)
            if gone.looks >= len(self._pauses):
                del self._gone[key]
            elif now - gone.since > PATIENCE:
                del self._gone[key]
                if mine or not worked:
                    self._failed(f"what was left of a deleted session ({key[:12]}) could not be deleted")
            else:
                gone.due = now + self._pauses[min(gone.looks, len(self._pauses) - 1)]
