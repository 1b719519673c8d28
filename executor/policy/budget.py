"""How much processor time one check may take: hostile code must not hold up the server's event loop."""

from __future__ import annotations

from time import thread_time

CHECK_SECONDS = 1.5
"""Processor seconds for one check. Not wall time: a busy machine must not refuse what a quiet one allows."""

PARSE_SECONDS = 1.0
"""Processor seconds for one run of a tree-sitter parser; a megabyte of ordinary code takes half of that."""


class TooComplex(Exception):
    """The code cannot be checked within the budget; becomes a violation, never reaches a caller."""


class Budget:
    """The time that is left for a check, asked for often and cheaply."""

    __slots__ = ("_count", "_end")

    def __init__(self, seconds: float = CHECK_SECONDS) -> None:
        self._end = thread_time() + seconds
        self._count = 0

    def spend(self) -> None:
        """Count one step; every 1,024th looks at the clock. Raises TooComplex when the time is up."""
        self._count += 1
        if not self._count & 1023:
            self.look()

    def look(self) -> None:
        """Look at the clock now. Raises TooComplex when the time is up."""
        if thread_time() > self._end:
            raise TooComplex

    def left(self) -> float:
        """Processor seconds that are left, at least 0."""
        return max(0.0, self._end - thread_time())
