"""How many wrong keys somebody may try: slower with every one, and after some none for the rest of a minute."""

from __future__ import annotations

import time
from collections import OrderedDict, deque

WINDOW = 60.0
"""Seconds for which a failure counts."""
PER_ADDRESS = 20
"""Failures of one address in a window, after which its keys are not even looked at."""
IN_ALL = 300
"""The same for all addresses together, for whoever can make them up."""
_FREE = 3
_LONGEST_DELAY = 5.0
_REMEMBERED = 10_000


class Attempts:
    """Counts failures by address. The right key of an address without failures is never slowed down."""

    def __init__(self) -> None:
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque(maxlen=IN_ALL)

    def exhausted(self, address: str) -> bool:
        """Whether a key from there must be refused without a look at it."""
        now = time.monotonic()
        own = self._by_address.get(address, ())
        return _recent(own, now) >= PER_ADDRESS or _recent(self._all, now) >= IN_ALL

    def failed(self, address: str) -> float:
        """Count a wrong key; returns the seconds by which the answer should be late."""
        now = time.monotonic()
        own = self._by_address.setdefault(address, deque(maxlen=PER_ADDRESS))
        self._by_address.move_to_end(address)
        while len(self._by_address) > _REMEMBERED:
            self._by_address.popitem(last=False)
        own.append(now)
        self._all.append(now)
        return min(0.25 * 2.0 ** max(0, _recent(own, now) - _FREE), _LONGEST_DELAY)


def _recent(times: deque[float] | tuple[float, ...], now: float) -> int:
    return sum(1 for at in times if at > now - WINDOW)
