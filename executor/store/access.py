"""Access: the medium from the event loop's side, with sentences where it fails, and what is done in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from executor.errors import StoreFailed
from executor.events import Event, Fault
from executor.store.calls import Calls
from executor.store.medium import Medium
from executor.store.names import Name, parse

_T = TypeVar("_T")


class Access:
    """One medium, whose calls end after `patience` seconds."""

    def __init__(self, medium: Medium, *, patience: float, publish: Callable[[Event], None] | None) -> None:
        self.medium = medium
        self.calls = Calls(patience=patience)
        self._publish = publish
        self._made: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def ask(self, function: Callable[[], _T], *, late: Callable[[_T], None] | None = None) -> _T:
        """What `function` gives or raises, or StoreFailed where the medium hangs; see Calls."""
        return await self.calls.run(function, late=late)

    async def do(self, what: str, function: Callable[[], _T]) -> _T:
        """As `ask`, with StoreFailed also where the medium fails: "The store could not" `what`."""
        try:
            return await self.calls.run(function)
        except OSError as error:
            raise StoreFailed(f"The store could not {what}: {error.strerror or type(error).__name__}.") from None

    async def names(self, shard: str) -> list[Name]:
        """What a shard lists. Raises StoreFailed."""
        listed = await self.do("be listed", partial(self.medium.names, shard))
        return [name for text in listed if (name := parse(text)) is not None]

    async def make(self, folder: str) -> None:
        """See to it that a folder is there. Raises StoreFailed."""
        if folder not in self._made:
            await self.do("be written", partial(self.medium.make, folder))
            self._made.add(folder)

    async def write(self, path: str, data: bytes) -> None:
        """Write a new name as a whole. Raises StoreFailed."""
        await self.do("be written", partial(_write, self.medium, path, data))

    async def remove(self, names: list[Name]) -> bool:
        """Delete names, manifests before the packs they refer to; False where something could not be deleted."""
        for suffix in ("snap", "pack"):
            paths = [name.path for name in names if name.suffix == suffix]
            results = await asyncio.gather(
                *(self.do("be tidied", partial(self.medium.delete, path)) for path in paths), return_exceptions=True
            )
            for error in results:
                if isinstance(error, StoreFailed):
                    return False
                if isinstance(error, BaseException):
                    raise error
        return True

    def own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something in the background, until `aclose`."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def let_go(self, close: Callable[[], None]) -> None:
        """Close a file in the background: on a volume even that may hang."""

        async def closing() -> None:
            with suppress(StoreFailed):
                await self.do("be closed", close)

        self.own(closing())

    def fault(self, detail: str) -> None:
        """Say that something is wrong with the store."""
        if self._publish is not None:
            self._publish(Fault(where="store", detail=detail))

    async def aclose(self) -> None:
        """Give what is under way 5 s. Idempotent."""
        if self._tasks:
            _, left = await asyncio.wait(set(self._tasks), timeout=5)
            for task in left:
                task.cancel()


def _write(medium: Medium, path: str, data: bytes) -> None:
    writer = medium.create(path)
    try:
        writer.write(data)
        writer.close()
    finally:
        writer.abandon()
