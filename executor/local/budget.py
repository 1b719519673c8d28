"""Budget: the memory that all sessions together may use, so that the machine stays answerable."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from executor.backend import SessionRef

SHARE = 0.75
"""Part of the container's memory that sessions may take together, where no figure is set."""


class Budget:
    """Keeps the last figure of each session; `limit` in bytes, 0 for a share of what the container has."""

    def __init__(self, limit: int) -> None:
        self.limit = limit or int(container_memory() * SHARE)
        self._used: dict[SessionRef, int] = {}

    def note(self, session: SessionRef, memory: int) -> None:
        """A session uses that many bytes."""
        self._used[session] = memory

    @property
    def excess(self) -> int:
        """Bytes by which all together are over the limit."""
        return max(0, sum(self._used.values()) - self.limit)

    def largest(self) -> SessionRef | None:
        """The session that must give way. It counts as nothing until it tells what it uses next: it is told once."""
        if not self._used:
            return None
        offender = max(self._used, key=self._used.__getitem__)
        del self._used[offender]
        return offender

    def forget(self, session: SessionRef) -> None:
        """A session ended."""
        self._used.pop(session, None)


def container_memory() -> int:
    """Bytes of memory that this container may use: cgroup v2, then v1, then the machine's."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int(Path(path).read_text().strip())
            # version 1 says "none" by a number near 2**63
            if limit < 1 << 50:
                return limit
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
