"""Loop: one epoll, and a handler for each descriptor."""

from __future__ import annotations

import contextlib
import select
from collections.abc import Callable

Handler = Callable[[bool, bool], None]
"""Called with whether there is something to read (or the other end is gone), and whether there is room to write."""


class Loop:
    """Waits for descriptors and calls their handlers, all on one thread."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._writing: set[int] = set()

    def add(self, fd: int, handler: Handler) -> None:
        """Call `handler` whenever `fd` can be read."""
        self._handlers[fd] = handler
        self._poll.register(fd, select.EPOLLIN)

    def remove(self, fd: int) -> None:
        """Forget `fd`; before it is closed, as its number may be another's soon."""
        self._writing.discard(fd)
        if self._handlers.pop(fd, None):
            with contextlib.suppress(OSError):
                self._poll.unregister(fd)

    def want_room(self, fd: int, wanted: bool) -> None:
        """Also call the handler of `fd` when there is room to write, or no longer."""
        if (fd in self._writing) == wanted or fd not in self._handlers:
            return
        self._writing ^= {fd}
        self._poll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))

    def turn(self, timeout: float) -> None:
        """Wait up to `timeout` seconds, without end where it is infinite, and handle what is ready."""
        for fd, mask in self._poll.poll(None if timeout == float("inf") else timeout, 64):
            # one that was handled just now may have taken this one out
            if handler := self._handlers.get(fd):
                handler(bool(mask & ~select.EPOLLOUT), bool(mask & select.EPOLLOUT))
