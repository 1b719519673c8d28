"""One execution as the page follows it: what is printed as it comes, what is displayed, and the result."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from executor import Displayed, Executor, ExecutorError, Finished, NoSuchSession, OutputChunk
from executor.events import ToolCalled, during
from executor.results import ExecutionResult, Output
from space.page.visitor import Visitor

EVERY = 0.1
"""Seconds between two updates of the page while output streams."""
_SHOWN_CHARS = 20_000
_TOOL = {
    "python": "execute_python_code",
    "javascript": "execute_javascript_code",
    "bash": "execute_bash_command",
}


@dataclass(slots=True)
class Progress:
    """How far an execution is: (stream, text) printed so far, values displayed so far, and at the end the result."""

    printed: list[tuple[str, str]] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    result: ExecutionResult | None = None

    def add(self, event: OutputChunk | Displayed | Finished) -> None:
        """Take in what happened."""
        match event:
            case Finished():
                self.result = event.result
            case Displayed():
                self.outputs.append(event.output)
            case OutputChunk():
                last = self.printed[-1] if self.printed else ("", "")
                if last[0] == event.stream:
                    self.printed[-1] = event.stream, (last[1] + event.text)[-_SHOWN_CHARS:]
                else:
                    self.printed = [*self.printed[-200:], (event.stream, event.text[-_SHOWN_CHARS:])]


async def session_of(executor: Executor, visitor: Visitor, chosen: str) -> str:
    """The id of the session to use: the chosen one, else the page's own, made if need be. Raises an ExecutorError."""
    if chosen:
        if not visitor.may_reach(chosen):
            raise NoSuchSession("There is no such session.")
        return executor.session(chosen, **visitor.caller()).id
    if visitor.granted:
        return executor.session(visitor.granted, **visitor.caller()).id
    assert visitor.conversation is not None  # only a visitor with a grant may be without
    return (await executor.session_for(owner=visitor.owner, conversation=visitor.conversation)).id


async def run(
    executor: Executor, visitor: Visitor, session_id: str, *, code: str, language: str, timeout: float | None
) -> AsyncIterator[Progress]:
    """Start code and follow it. Going away leaves it running, to its end or its time limit: `follow` finds it again."""
    request_id, began, tool = secrets.token_hex(8), time.perf_counter(), _TOOL.get(language, "unknown")
    outcome: Literal["ok", "error", "cancelled"] = "cancelled"
    try:
        # only round this and not the whole: every step of a generator may run in another context
        with during(request_id, tool):
            _, execution_id = await executor.start_execution(
                code, language=language, session_id=session_id, timeout=timeout, **visitor.caller()
            )
        async for progress in follow(executor, visitor, session_id, execution_id):
            if progress.result is not None:
                outcome = "ok" if progress.result.success else "error"
            yield progress
    except ExecutorError:
        outcome = "error"
        raise
    finally:
        executor.bus.publish(
            ToolCalled(
                tool=tool,
                request_id=request_id,
                transport="page",
                outcome=outcome,
                owner=visitor.owner,
                identified=True,
                session_id=session_id,
                seconds=time.perf_counter() - began,
            )
        )


async def follow(executor: Executor, visitor: Visitor, session_id: str, execution_id: str) -> AsyncIterator[Progress]:
    """An execution from its first event to its result: the same object again and again, at most every `EVERY`."""
    progress = Progress()
    events = executor.attach(execution_id, session_id=session_id, **visitor.caller())
    coming: asyncio.Future[OutputChunk | Displayed | Finished] = asyncio.ensure_future(anext(events))
    shown_at = time.monotonic()
    untold = False
    try:
        while progress.result is None:
            # with something to tell, wait for more only until its time has come
            await asyncio.wait({coming}, timeout=max(0.0, shown_at + EVERY - time.monotonic()) if untold else None)
            if coming.done():
                progress.add(coming.result())
                untold = True
                if progress.result is None:
                    coming = asyncio.ensure_future(anext(events))
            if progress.result is not None or (untold and time.monotonic() >= shown_at + EVERY):
                shown_at, untold = time.monotonic(), False
                yield progress
    except StopAsyncIteration:
        return
    finally:
        coming.cancel()
        await asyncio.gather(coming, return_exceptions=True)
        await events.aclose()  # type: ignore[attr-defined]  # it is a generator
