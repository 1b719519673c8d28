"""How many wrong keys may be tried: slower with every one, and after some none for the rest of a minute."""

from __future__ import annotations

import math
import time
from collections import OrderedDict, deque

WINDOW = 60.0
"""Seconds for which a failure counts."""
PER_ADDRESS = 20
"""Failures of one address in a window, after which its keys are not even looked at."""
IN_ALL = 300
"""The same for all addresses together, for whoever can make them up. It shuts out only addresses that are not known."""
KNOWN = 7 * 24 * 3600.0
"""Seconds for which an address is known that gave the right key: LibreChat may be silent for days."""
_FREE = 3
_LONGEST_DELAY = 5.0
_REMEMBERED = 10_000


class Attempts:
    """Counts failures by address and in all, and knows the addresses that gave the right key lately.

    A known address has only its own failures to fear. One that is not known is refused, with the right key, too, while
    all addresses together have failed `IN_ALL` times in a window; nobody's right key is answered late.
    """

    def __init__(self) -> None:
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()
        self._all: deque[float] = deque(maxlen=IN_ALL)
        self._known: OrderedDict[str, float] = OrderedDict()

    def exhausted(self, address: str) -> bool:
        """Whether a key from there must be refused without a look at it."""
        now = time.monotonic()
        own = self._by_address.get(address, ())
        if _recent(own, now) >= PER_ADDRESS:
            return True
        # or else strangers could lock out everybody by failing often enough
        known = self._known.get(address, -math.inf) > now - KNOWN
        return not known and _recent(self._all, now) >= IN_ALL

    def succeeded(self, address: str) -> None:
        """Know an address for having given the right key."""
        self._known[address] = time.monotonic()
        self._known.move_to_end(address)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

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
