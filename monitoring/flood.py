"""Flood control: the same line over and over is counted, not printed."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple


class Repeated(NamedTuple):
    """A line that was held back: what it said, how often, and over how many seconds."""

    label: str
    times: int
    seconds: float


@dataclass(slots=True)
class _Window:
    label: str
    limit: int
    ends: float
    seen: int = 0


class Flood:
    """Lets the first `limit` lines of a key through in each window of `seconds` and counts the rest.

    Holds at most `keys` keys; the oldest goes first. Not locked: its owner calls it under the lock it prints under.
    """

    def __init__(self, *, seconds: float = 60.0, keys: int = 1000, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._keys = keys
        self._clock = clock
        self._windows: dict[Hashable, _Window] = {}

    def admit(self, key: Hashable, label: str, limit: int) -> bool:
        """Whether a line may be printed; `label` says in `Repeated` what it was."""
        window = self._windows.get(key)
        if window is None:
            window = self._windows[key] = _Window(label, limit, self._clock() + self._seconds)
        window.seen += 1
        return window.seen <= window.limit

    def ended(self, *, everything: bool = False) -> list[Repeated]:
        """The windows that are over (or all), forgotten by this call; those that held something back are returned."""
        now = self._clock()
        over: list[Repeated] = []
        # windows all last equally long, so the dict is ordered by their end
        while self._windows:
            key = next(iter(self._windows))
            window = self._windows[key]
            if not (everything or window.ends <= now or len(self._windows) > self._keys):
                break
            del self._windows[key]
            if window.seen > window.limit:
                over.append(
                    Repeated(window.label, window.seen - window.limit, self._seconds - max(0.0, window.ends - now))
                )
        return over
