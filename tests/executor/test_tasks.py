"""Background work and what it keeps of the call that started it."""

import asyncio
import contextvars
import gc
import weakref

from executor.events import Bus, Fault, during
from executor.tasks import Tasks


class Request:
    """What a caller's framework puts into its context."""


request = contextvars.ContextVar("request", default=None)


async def test_a_task_that_is_kept_keeps_nothing_of_its_callers_context_but_whose_events_it_makes():
    tasks = Tasks(Bus())

    async def work():
        assert request.get() is None
        return Fault(where="here", detail="")

    async def call():
        mine = Request()
        request.set(mine)
        with during("call-1", "execute"):
            return tasks.own(work()), weakref.ref(mine)

    kept, mine = await asyncio.create_task(call())
    event = await kept
    assert (event.request_id, event.tool) == ("call-1", "execute")
    await asyncio.sleep(0)  # the loop itself holds what it runs just now
    gc.collect()
    assert mine() is None, "the request lives as long as the task is remembered"
