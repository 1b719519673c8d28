"""The tool calls that are running, who they belong to, and what a client's cancel may end."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from dataclasses import dataclass

from space.content import Answer
from space.identity import Caller

RequestId = str | int
_EARLY_SECONDS = 5.0
_EARLY_KEPT = 256


@dataclass(eq=False, slots=True)
class Call:
    """One running call. `connection` names the SSE connection that it came over, None for stateless HTTP."""

    task: asyncio.Task[Answer]
    caller: Caller
    connection: str | None
    request_id: RequestId
    cancelled: bool = False


class Calls:
    """All running calls, each a task of its own that outlives its request.

    The MCP specification (basic/utilities/cancellation and basic/transports) tells a cancel from a connection that
    broke: only the first one ends the work. A broken connection leaves the code running to its end or its timeout.
    """

    def __init__(self) -> None:
        self._running: set[Call] = set()
        self._early: OrderedDict[tuple[str, RequestId], float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._running)

    def add(self, task: asyncio.Task[Answer], *, caller: Caller, connection: str | None, request_id: RequestId) -> Call:
        """Own `task` until it is done; ends it at once where its cancel came first."""
        call = Call(task, caller, connection, request_id)
        self._running.add(call)
        task.add_done_callback(lambda _: self._running.discard(call))
        if connection is not None and self._early:
            since = self._early.pop((connection, request_id), None)
            if since is not None and time.monotonic() - since < _EARLY_SECONDS:
                self._end(call)
        return call

    def cancel_on_connection(self, connection: str, request_id: RequestId) -> bool:
        """End the call that came over this SSE connection under this id; True if there was one."""
        for call in self._running:
            if call.connection == connection and call.request_id == request_id:
                self._end(call)
                return True
        # the cancel is a request of its own and may overtake the call's
        self._early[connection, request_id] = time.monotonic()
        while len(self._early) > _EARLY_KEPT:
            self._early.popitem(last=False)
        return False

    def cancel_by_caller(self, caller: Caller, request_id: RequestId) -> bool:
        """End the call that a cancel over stateless HTTP means; True if exactly one call can be meant.

        Clients number their requests from 0, so the id alone says little: owner and id must match, the conversation
        decides between several, and a conversation that differs forbids. Callers without identity cannot be told
        apart, so for them nothing ends.
        """
        if not caller.identified:
            return False
        found = [
            call
            for call in self._running
            if call.connection is None and call.request_id == request_id and call.caller.owner == caller.owner
        ]
        if caller.conversation is not None:
            found = [call for call in found if call.caller.conversation in (None, caller.conversation)]
        if len(found) > 1:
            found = [call for call in found if call.caller.conversation == caller.conversation]
        if len(found) != 1:
            return False
        self._end(found[0])
        return True

    async def aclose(self) -> None:
        """End every call, and wait until they have ended."""
        tasks = [call.task for call in self._running]
        for call in tuple(self._running):
            self._end(call)
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    def _end(self, call: Call) -> None:
        call.cancelled = True
        call.task.cancel()
