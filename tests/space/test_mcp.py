"""The SDK underneath: what our guard against its double answers is good for."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import anyio
from mcp import types
from mcp.server.lowlevel import Server
from mcp.shared.memory import create_connected_server_and_client_session

from executor import Executor
from executor.events import Bus
from executor.settings import Settings
from space.mcp import INSTRUCTIONS, Endpoint
from space.toolbox import Toolbox
from space.tools import tool_table


def endpoint(**settings: Any) -> Endpoint:
    made = Settings(**settings)
    bus = Bus()
    toolbox = Toolbox(Executor(made, bus=bus), made, bus, tool_table(made))
    return Endpoint(toolbox, bus, version="1", single_user=False)


async def test_an_answer_to_a_cancelled_call_does_not_end_the_connection() -> None:
    """Without the guard the SDK raises `Request already responded to`, and every call on the connection fails."""
    endpoint()  # puts the guard in place
    server: Server[object, Any] = Server("stubborn")
    began = asyncio.Event()

    @server.call_tool(validate_input=False)  # type: ignore[untyped-decorator]
    async def call(name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        if name == "stubborn":
            began.set()
            # as a handler does that has its answer ready when the cancel comes
            with contextlib.suppress(asyncio.CancelledError):
                await anyio.sleep(30)
        return types.CallToolResult(content=[])

    async with create_connected_server_and_client_session(server) as session:
        stubborn = asyncio.create_task(session.call_tool("stubborn", {}))
        await began.wait()
        cancelled = types.CancelledNotification(params=types.CancelledNotificationParams(requestId=1))
        await session.send_notification(types.ClientNotification(cancelled))
        await asyncio.gather(stubborn, return_exceptions=True)
        async with asyncio.timeout(10):
            await session.send_ping()


def test_only_the_tools_that_are_set_are_offered() -> None:
    assert list(tool_table(Settings(tools=("list_files",)))) == ["list_files"]
    assert {"get_execution_result", "open_session_page"} <= tool_table(Settings()).keys()


def test_the_instructions_are_short() -> None:
    assert len(INSTRUCTIONS) < 1_000
