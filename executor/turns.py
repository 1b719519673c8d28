"""Turns: who is next where many wait, one of each owner in turn, and how long such waits have taken of late."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from statistics import median
from typing import Generic, TypeVar

_T = TypeVar("_T")

_REMEMBERED = 32
_LONGEST_ADVICE = 300


class Turns(Generic[_T]):
    """Those who wait: round robin over owners, first come first served within one.

    An owner with thirty waiting holds nobody else up: with k owners waiting, each is served once in k turns. Whoever
    was served goes to the end of the round; whoever waits for the first time begins there.
    """

    def __init__(self) -> None:
        self._round: OrderedDict[str, deque[_T]] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(line) for line in self._round.values())

    def owners(self) -> Iterable[str]:
        """Those who have something waiting, the next one first."""
        return self._round.keys()

    def add(self, owner: str, item: _T) -> None:
        """Let `item` wait behind the owner's others."""
        self._round.setdefault(owner, deque()).append(item)

    def take(self, owner: str | None = None) -> _T:
        """Serve the next owner, or the one named, who must be waiting; that ends the owner's turn."""
        if owner is None:
            owner = next(iter(self._round))
        line = self._round[owner]
        item = line.popleft()
        if line:
            self._round.move_to_end(owner)
        else:
            del self._round[owner]
        return item

    def remove(self, owner: str, item: _T) -> None:
        """Let `item` wait no longer; it must be waiting. The owner keeps its place in the round for the others."""
        line = self._round[owner]
        line.remove(item)
        if not line:
            del self._round[owner]


class RecentWaits:
    """How long the last few waits took, for saying when to try again. Seconds."""

    def __init__(self) -> None:
        self._waits: deque[float] = deque(maxlen=_REMEMBERED)

    def note(self, seconds: float) -> None:
        """A wait took that long, or was given up after that long."""
        self._waits.append(max(0.0, seconds))

    def advice(self) -> int:
        """Whole seconds after which another try is worth while: the median of the recent waits, 1 to 300."""
        return min(_LONGEST_ADVICE, max(1, math.ceil(median(self._waits)))) if self._waits else 1


Clock = Callable[[], float]
"""Seconds from an arbitrary point, never running back: `time.monotonic`, which is also an event loop's own clock."""
