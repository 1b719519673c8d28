"""Calls: blocking calls to a medium, on threads of their own, each with a deadline.

A volume may hang, and a thread that hangs in the kernel cannot be ended. It is given up and replaced; when too many are
given up, calls fail at once until one of them comes back, so that a dead volume costs a bounded number of threads.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from executor.errors import StoreFailed

_T = TypeVar("_T")

IDLE = 5.0
"""Seconds after which a thread without work ends."""


@dataclass(slots=True, eq=False)
class _Call:
    function: Callable[[], Any]
    late: Callable[[Any], None] | None
    future: asyncio.Future[Any]
    given_up: bool = False


class Calls:
    """At most `threads` calls at once, each for `patience` seconds, and at most `lost` that hang beyond that."""

    def __init__(self, *, threads: int = 8, lost: int = 8, patience: float = 20.0) -> None:
        self._slots = asyncio.Semaphore(threads)
        self._max_lost = lost
        self._patience = patience
        self._waiting: queue.SimpleQueue[Callable[[], Callable[[], None]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self.lost = 0

    async def run(self, function: Callable[[], _T], *, late: Callable[[_T], None] | None = None) -> _T:
        """What `function` gives or raises, or StoreFailed after `patience` seconds.

        `late` takes what it gives when nobody waits for it any more; called in a thread or on the loop, must not block.
        """
        self._refuse_if_dead()
        await self._slots.acquire()
        try:
            self._refuse_if_dead()
        except StoreFailed:
            self._slots.release()
            raise
        loop = asyncio.get_running_loop()
        call = _Call(function, late, loop.create_future())
        timer = loop.call_later(self._patience, self._give_up, call)
        self._hand_over(call, loop, timer)
        result: _T = await call.future
        return result

    def _refuse_if_dead(self) -> None:
        if self.lost >= self._max_lost:
            raise StoreFailed(
                f"The store does not answer: {self.lost} calls to it hang. Try again when its volume is back."
            )

    def _hand_over(self, call: _Call, loop: asyncio.AbstractEventLoop, timer: asyncio.TimerHandle) -> None:
        def done(result: Any, error: BaseException | None) -> None:
            timer.cancel()
            if call.given_up:
                self.lost -= 1
            else:
                self._slots.release()
            if not call.future.done():
                if error is None:
                    call.future.set_result(result)
                else:
                    call.future.set_exception(error)
            elif error is None and call.late is not None:
                call.late(result)

        def work() -> Callable[[], None]:
            result, error = None, None
            try:
                result = call.function()
            except BaseException as caught:
                error = caught

            def report() -> None:
                try:
                    loop.call_soon_threadsafe(done, result, error)
                except RuntimeError:  # the loop is closed: nobody is left to be told
                    if error is None and call.late is not None:
                        call.late(result)

            return report

        with self._lock:
            start = self._idle == 0
            if not start:
                self._idle -= 1
        self._waiting.put(work)
        if start:
            threading.Thread(target=self._serve, name="store", daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                work = self._waiting.get(timeout=IDLE)
            except queue.Empty:
                with self._lock:
                    if self._idle == 0:  # somebody has just counted on this thread
                        continue
                    self._idle -= 1
                return
            report = work()
            with self._lock:
                self._idle += 1
            report()  # only now, so that the next call finds this thread
            del work, report

    def _give_up(self, call: _Call) -> None:
        call.given_up = True
        self.lost += 1
        self._slots.release()
        if not call.future.done():
            with suppress(asyncio.InvalidStateError):
                call.future.set_exception(
                    StoreFailed(f"The store did not answer within {self._patience:g} s. Try again later.")
                )
