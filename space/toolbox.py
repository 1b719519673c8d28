"""What a tool is, and the toolbox that answers calls: checks arguments, waits for the start, reports what happened."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from executor import Executor, Settings
from executor.errors import ExecutorError, InvalidRequest
from executor.events import Bus, Fault, ToolCalled, during
from space.arguments import BadArgument, checked
from space.content import Answer, refusal
from space.fetch import Fetcher, FetchRefused
from space.identity import Caller
from space.links import Grant, Links
from space.uploads import UploadRefused, Uploads

Arguments = dict[str, Any]
Transport = Literal["sse", "http", "page"]
_START_SECONDS = 60.0

SESSION_ID: dict[str, Any] = {"type": "string", "description": "Session to use; default: this conversation's own."}
"""The optional parameter that most tools share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hints:
    """What a client may think of a tool; the words of MCP's annotations."""

    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False
    open_world: bool = False


READS = Hints(read_only=True, idempotent=True)
DESTROYS = Hints(destructive=True)
"""Also of what may destroy: code, and a file that is replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """One tool."""

    name: str
    title: str
    description: str
    properties: Mapping[str, Mapping[str, Any]]
    output: Mapping[str, Any]
    run: Callable[[Toolbox, Caller, Arguments], Awaitable[Answer]]
    required: tuple[str, ...] = ()
    hints: Hints = Hints()
    shown: bool = False
    """Whether its results are something to look at, for clients that have a view for it."""

    @property
    def schema(self) -> dict[str, Any]:
        """The input schema."""
        schema: dict[str, Any] = {"type": "object", "properties": dict(self.properties)}
        if self.required:
            schema["required"] = list(self.required)
        return schema


class Toolbox:
    """Answers tool calls with an executor. Never raises for what a caller did: every error is an answer."""

    def __init__(self, executor: Executor, settings: Settings, bus: Bus, tools: Mapping[str, Tool]) -> None:
        self.executor = executor
        self.settings = settings
        self.tools = tools
        self.links = Links(settings, self._grants)
        self.uploads = Uploads(max_bytes=settings.max_upload_mb * 2**20)
        self.fetcher = Fetcher(max_bytes=settings.max_upload_mb * 2**20)
        self.ready = asyncio.Event()
        """Set once the executor has started; calls wait for it, and the page does."""
        self._bus = bus
        self._schemas = {name: tool.schema for name, tool in tools.items()}

    async def call(self, name: str, arguments: Mapping[str, Any], caller: Caller, transport: Transport) -> Answer:
        """The answer of tool `name`. Cancelling interrupts what runs."""
        started = time.perf_counter()
        request_id = secrets.token_hex(8)
        outcome: Literal["ok", "error", "cancelled", "fault"] = "cancelled"
        answer: Answer | None = None
        known = name if name in self.tools else "unknown"
        with during(request_id, known):
            try:
                answer = await self._answer(name, arguments, caller)
                outcome = "error" if answer.is_error else "ok"
            except (ExecutorError, BadArgument, UploadRefused, FetchRefused) as error:
                answer = refusal(str(error))
                outcome = "error"
            except Exception as error:
                # the last resort: the caller gets an answer, the operator the cause
                self._bus.publish(Fault(where=f"tool {known}", detail=f"{type(error).__name__}: {error}"))
                answer = refusal(f"something failed on our side ({type(error).__name__}); the call can be tried again.")
                outcome = "fault"
            finally:
                self._bus.publish(
                    ToolCalled(
                        tool=known,
                        request_id=request_id,
                        transport=transport,
                        outcome=outcome,
                        owner=caller.owner,
                        identified=caller.identified,
                        session_id=answer.session_id if answer else None,
                        seconds=time.perf_counter() - started,
                    )
                )
        return answer

    async def _answer(self, name: str, arguments: Mapping[str, Any], caller: Caller) -> Answer:
        tool = self.tools.get(name)
        if tool is None:
            raise InvalidRequest(f"there is no tool {name!r:.100}; the tools are {', '.join(self.tools)}.")
        values = checked(self._schemas[name], arguments)
        if not await has_started(self.ready):
            return refusal("the interpreter is still starting; try again in half a minute.")
        return await tool.run(self, caller, values)

    def _grants(self) -> Iterable[Grant] | None:
        """A grant of every session; None before the executor has found those of the former server."""
        return (Grant(*named) for named in self.executor.known()) if self.ready.is_set() else None

    def grant(self, caller: Caller, session_id: str) -> Grant:
        """What a link made for this caller speaks for."""
        return Grant(caller.owner, caller.conversation, session_id)

    async def session_id(self, caller: Caller, session_id: str | None) -> str:
        """The session that a call means: the one it names, else its conversation's own."""
        if session_id:
            return session_id
        if caller.conversation is None:
            raise InvalidRequest("session_id is needed here; execute_... and create_execution_session return one.")
        session = await self.executor.session_for(owner=caller.owner, conversation=caller.conversation)
        return session.id


async def has_started(ready: asyncio.Event) -> bool:
    """Whether the executor has started; waits up to a minute for it."""
    if not ready.is_set():
        try:
            await asyncio.wait_for(ready.wait(), _START_SECONDS)
        except TimeoutError:
            return False
    return True


def session_note(caller: Caller, session_id: str | None) -> str:
    """What to say behind the id of a session that was made for this one call, and why that was so."""
    if session_id or caller.conversation is not None:
        return ""
    missing = " and ".join(caller.missing)
    return f" (new; pass it to keep variables: the header{'s' * (len(caller.missing) > 1)} {missing} did not come)"
