"""Epochs: which server a store belongs to, when one takes over from another.

Every start takes an epoch above all that it sees, with a name that is written once. There is no lock: an earlier
server goes on, its snapshots just count less, and it deletes nothing once it sees that it was followed.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from functools import partial

from executor.errors import StoreFailed
from executor.store.access import Access
from executor.store.names import EPOCHS, Name, Order, epoch_path, epochs, new_nonce

KEPT = 8
"""Former epochs whose names stay."""


class Epoch:
    """This server's place in the order. `settle`: seconds that a former server may need to stop."""

    def __init__(self, access: Access, *, settle: float) -> None:
        self._access = access
        self._settle = settle
        self._nonce = new_nonce()
        self._number = -1
        self._began = time.monotonic()
        self._claiming = asyncio.Lock()

    @property
    def number(self) -> int:
        """The epoch; -1 before one is claimed."""
        return self._number

    async def claim(self, *, above: int = -1) -> None:
        """See to it that there is an epoch, higher than all that can be seen. Raises StoreFailed."""
        async with self._claiming:
            if self._number > above:
                return
            medium = self._access.medium
            taken = epochs(await self._access.do("be listed", partial(medium.names, EPOCHS)))
            number = max([above, *(number for number, _ in taken)]) + 1
            await self._access.make(EPOCHS)
            await self._access.write(epoch_path(number, self._nonce), b"")
            self._number = number
            for old, nonce in sorted(taken)[:-KEPT]:
                with suppress(StoreFailed):
                    await self._access.do("be tidied", partial(medium.delete, epoch_path(old, nonce)))

    def order(self, sequence: int) -> Order:
        """The order of this server's save with that sequence."""
        return self._number, sequence, self._nonce

    def may_build_on(self, name: Name) -> bool:
        """Whether nobody but this server can delete a name any more: it is ours, or the former server has stopped."""
        return name.order[2] == self._nonce or time.monotonic() - self._began >= self._settle

    async def outnumbered(self) -> bool:
        """Whether another server has taken over, or may have. Raises StoreFailed."""
        taken = epochs(await self._access.do("be listed", partial(self._access.medium.names, EPOCHS)))
        return any(number >= self._number and nonce != self._nonce for number, nonce in taken)
