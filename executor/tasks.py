"""Tasks: background work that has an owner, so that none is lost, forgotten or fails unheard."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from executor.errors import ExecutorError
from executor.events import Bus, Fault, bare_context

_T = TypeVar("_T")


class Tasks:
    """Holds tasks until they are done; what they raise beyond ExecutorError is published as a fault."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._tasks: set[asyncio.Task[Any]] = set()

    def own(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start work and keep it alive, in a context of its own: it may outlive the call that it was started in."""
        context = bare_context()
        task = asyncio.create_task(work, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._done, context=context)
        return task

    async def join(self, timeout: float) -> None:
        """Wait for all to end, `timeout` seconds at most; what is left then is cancelled."""
        if self._tasks:
            _, left = await asyncio.wait(tuple(self._tasks), timeout=timeout)
            for task in left:
                task.cancel()

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not isinstance(error, ExecutorError):
            self._bus.publish(Fault(where="executor", detail=f"{type(error).__name__}: {error}"))
