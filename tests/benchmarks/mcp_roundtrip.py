"""MCP round trip over SSE: our tools against a bare echo on the same SDK and transport, side by side.

Run as a module with `--echo PORT` it is that echo server.
"""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
from mcp import ClientSession
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest

from tests.benchmarks.timing import p50, times
from tests.e2e.running import RunningSpace, client, free_port, identity

ROUNDS = 8
CALLS = 60


async def measure() -> dict[str, Any]:
    """Medians in milliseconds, and each tool's ratio to the echo. Floors: 1.3 for a tool that runs nothing, 2.2 for
    `print(1+1)`. The three are measured in turns, so that a busy machine is busy for all of them."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        echo = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.mcp_roundtrip", "--echo", str(port)])
        try:
            space = await asyncio.to_thread(RunningSpace.start, Path(folder))
            try:
                await _wait_for(f"http://127.0.0.1:{port}/healthz")
                found = await _in_turns(f"http://127.0.0.1:{port}", space)
            finally:
                await asyncio.to_thread(space.stop)
        finally:
            echo.terminate()
            echo.wait(timeout=10)
    base = p50(found["echo"])
    medians: dict[str, Any] = {f"{name}_ms": p50(values) for name, values in found.items()}
    return {
        **medians,
        "nothing_ratio": medians["list_sessions_ms"] / base,
        "print_ratio": medians["print_ms"] / base,
        "floors": "nothing 1.3, print 2.2",
    }


async def _in_turns(echo_url: str, space: RunningSpace) -> dict[str, list[float]]:
    async with AsyncExitStack() as stack:
        bare = await stack.enter_async_context(client(echo_url, "sse"))
        ours = await stack.enter_async_context(client(space, "sse", identity("bench", "bench")))

        async def call(session: ClientSession, name: str, arguments: dict[str, Any]) -> None:
            # as LibreChat calls: a plain request, without the client's own check against the output schema
            params = CallToolRequestParams(name=name, arguments=arguments)
            request = ClientRequest(CallToolRequest(params=params))
            result = await session.send_request(request, CallToolResult)
            assert not result.isError, result

        calls = {
            "echo": lambda: call(bare, "echo", {"text": "hello"}),
            "list_sessions": lambda: call(ours, "list_execution_sessions", {}),
            "print": lambda: call(ours, "execute_python_code", {"code": "print(1+1)"}),
        }
        found: dict[str, list[float]] = {name: [] for name in calls}
        for work in calls.values():
            await times(work, 20)
        gc.disable()
        try:
            for _ in range(ROUNDS):
                for name, work in calls.items():
                    found[name] += await times(work, CALLS)
        finally:
            gc.enable()
    return found


async def _wait_for(url: str) -> None:
    deadline = time.monotonic() + 30
    async with httpx.AsyncClient() as http:
        while time.monotonic() < deadline:
            try:
                if (await http.get(url)).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.1)
    raise AssertionError("the echo server did not start")


def _serve_echo(port: int) -> None:
    import uvicorn
    from mcp import types
    from mcp.server.lowlevel import Server
    from mcp.server.sse import SseServerTransport
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    server: Server[object, Request] = Server("echo")
    schema = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
    output = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}

    @server.list_tools()  # type: ignore[no-untyped-call, untyped-decorator]
    async def list_tools() -> list[types.Tool]:
        return [types.Tool(name="echo", description="Echo.", inputSchema=schema, outputSchema=output)]

    @server.call_tool(validate_input=False)  # type: ignore[untyped-decorator]
    async def call_tool(name: str, arguments: dict[str, Any]) -> types.CallToolResult:
        block = types.TextContent(type="text", text=arguments["text"])
        return types.CallToolResult(content=[block], structuredContent={"text": arguments["text"]})

    transport = SseServerTransport("/gradio_api/mcp/messages/")

    async def serve(request: Request) -> PlainTextResponse:
        async with transport.connect_sse(request.scope, request.receive, request._send) as (read, write):
            await server.run(read, write, server.create_initialization_options())
        return PlainTextResponse("")

    async def healthz(request: Request) -> PlainTextResponse:
        return PlainTextResponse("ok")

    app = Starlette(
        routes=[
            Route("/gradio_api/mcp/sse", serve, methods=["GET"]),
            Mount("/gradio_api/mcp/messages/", app=transport.handle_post_message),
            Route("/healthz", healthz),
        ]
    )
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--echo"]:
        _serve_echo(int(sys.argv[2]))
    else:
        print(asyncio.run(measure()), os.getloadavg())
