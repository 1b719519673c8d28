"""Progress: what a tool call tells its client while it runs, where the client asked to be told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Reporter = Callable[[float, str], Awaitable[None]]
"""Takes the seconds since the call began, and a line; never raises for a client that is gone."""

_reporter: ContextVar[Reporter | None] = ContextVar("progress_reporter", default=None)


@contextmanager
def told_to(reporter: Reporter | None) -> Iterator[None]:
    """Send what is reported within, also by tasks started within, to `reporter`; None: nobody asked."""
    token = _reporter.set(reporter)
    try:
        yield
    finally:
        _reporter.reset(token)


def wanted() -> bool:
    """Whether the client of this call asked for progress."""
    return _reporter.get() is not None


async def report(seconds: float, line: str) -> None:
    """Tell the client of this call, if it asked. `seconds` must grow from one report to the next."""
    if (reporter := _reporter.get()) is not None:
        await reporter(seconds, line)
