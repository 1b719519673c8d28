"""The MCP endpoint at Gradio's paths, on the official SDK. The one module that knows the SDK."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import anyio
from mcp.server.lowlevel import Server
from mcp.server.lowlevel.helper_types import ReadResourceContents
from mcp.server.sse import SseServerTransport
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.session import RequestResponder
from mcp.types import CallToolResult, EmbeddedResource, ImageContent, Resource, TextContent, ToolAnnotations
from mcp.types import Tool as ToolType
from pydantic import AnyUrl
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from executor.events import AccessRefused, Bus, ConnectionChanged
from space import apps, progress
from space.bodies import MAX_BODY_BYTES, REFUSAL, BodyReader
from space.calls import Call, Calls
from space.connections import BoundedStream, Connections
from space.content import Answer, clean, refusal
from space.identity import BadIdentity, Caller, caller_of
from space.toolbox import Tool, Toolbox, Transport
from space.views import MIME

ROOT = "/gradio_api/mcp"
_CONNECTION = "space.connection"
_SDK_LIMIT = MAX_BODY_BYTES + 1024  # ours speaks first, with a sentence

INSTRUCTIONS = (
    "A code interpreter with live sessions. Python, JavaScript and bash share one folder per conversation; variables, "
    "imports, the working directory and files last from call to call, so build on what is there instead of starting "
    "anew. Each result ends with its session_id; pass it on if the result says so. Matplotlib figures come back as "
    "pictures by themselves, full-size in plots/. A file that the user attached to the chat is not here: let them drop "
    "it on the page that open_session_page links to. Show download links to the user as they are. Code that takes "
    "long goes on by itself; wait for it with get_execution_result. After an error fix the cell and run only that "
    'again. A result that begins with "Error:" failed.'
)


class Endpoint:
    """Serves the tools over SSE and stateless streamable HTTP. Use `running()` round the server's life."""

    def __init__(self, toolbox: Toolbox, bus: Bus, *, version: str, single_user: bool) -> None:
        self._toolbox = toolbox
        self._bus = bus
        self._single_user = single_user
        self._calls = Calls()
        self._connections = Connections(toolbox.settings.max_connections)
        self._tools = [_tool_type(tool) for tool in toolbox.tools.values()]
        self._app_tools = [_tool_type(tool, app=True) for tool in toolbox.tools.values()]
        self._server: Server[object, Request] = Server("code-interpreter", version=version, instructions=INSTRUCTIONS)
        self._server.list_tools()(self._list_tools)  # type: ignore[no-untyped-call]
        self._server.call_tool(validate_input=False)(self._call_tool)
        if toolbox.settings.ui_resources != "off":
            self._server.list_resources()(self._list_resources)  # type: ignore[no-untyped-call]
            self._server.read_resource()(self._read_resource)  # type: ignore[no-untyped-call]
        self._sse = SseServerTransport(f"{ROOT}/messages/", max_request_body_size=_SDK_LIMIT)
        self._http = StreamableHTTPSessionManager(self._server, stateless=True, max_request_body_size=_SDK_LIMIT)
        self._messages = BodyReader(self._sse.handle_post_message, self._cancel_on_connection, self._oversize)
        self._requests = BodyReader(self._http.handle_request, self._cancel_by_caller, self._oversize)
        _guard_double_answers()

    def routes(self) -> list[BaseRoute]:
        """The endpoint's routes; each path works with and without a slash at its end."""
        messages, requests = _Asgi(self._serve_messages), _Asgi(self._serve_requests)
        return [
            Route(f"{ROOT}/sse", _Asgi(self._serve_sse), methods=["GET"]),
            Route(f"{ROOT}/messages/", messages),
            Route(f"{ROOT}/messages", messages),
            Route(f"{ROOT}/schema", self._serve_schema, methods=["GET"]),
            Route(f"{ROOT}/", requests),
            Route(ROOT, requests),
        ]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Serve until the context ends."""
        async with self._http.run():
            try:
                yield
            finally:
                await self.aclose()

    async def aclose(self) -> None:
        """End every call and every connection. Idempotent."""
        await self._calls.aclose()
        await self._connections.aclose()
        self._toolbox.uploads.close()

    async def _list_tools(self) -> list[ToolType]:
        return self._app_tools if self._shows_apps() else self._tools

    async def _list_resources(self) -> list[Resource]:
        if not self._shows_apps():
            return []
        view = {"uri": apps.URI, "name": "result", "title": "Result", "mimeType": apps.MIME}
        return [Resource.model_validate({**view, "_meta": apps.RESOURCE_META})]

    async def _read_resource(self, uri: AnyUrl) -> list[ReadResourceContents]:
        if str(uri) != apps.URI:
            raise ValueError(f"There is no resource {str(uri)!r:.100}; the only one is {apps.URI}.")
        return [ReadResourceContents(apps.template(), apps.MIME, apps.RESOURCE_META)]

    def _shows_apps(self) -> bool:
        """Whether the client said at its start that it shows MCP Apps; over stateless HTTP nobody heard it."""
        if self._toolbox.settings.ui_resources == "off":
            return False
        started = self._server.request_context.session.client_params
        return started is not None and apps.advertised(started.capabilities.model_dump())

    async def _call_tool(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        context = self._server.request_context
        if context.request is None:
            return _result(refusal("this call did not come over HTTP."))
        scope = context.request.scope
        if (sentence := scope.get(REFUSAL)) is not None:
            return _result(refusal(sentence))
        try:
            caller = self._caller(scope)
        except BadIdentity as error:
            return _result(refusal(str(error)))
        connection: str | None = scope.get(_CONNECTION)
        transport: Transport = "http" if connection is None else "sse"
        with progress.told_to(self._reporter()), apps.showing(self._shows_apps()):
            task = asyncio.create_task(self._toolbox.call(name, arguments, caller, transport))
        call = self._calls.add(task, caller=caller, connection=connection, request_id=context.request_id)
        return _result(await self._answer(call))

    def _reporter(self) -> progress.Reporter | None:
        """Sends progress to the client of this request; None where it gave no token for it."""
        context = self._server.request_context
        token = context.meta.progressToken if context.meta else None
        if token is None:
            return None
        session, request_id = context.session, str(context.request_id)

        async def report(seconds: float, line: str) -> None:
            # a client that is gone wants no news
            with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                await session.send_progress_notification(
                    token, seconds, message=clean(line), related_request_id=request_id
                )

        return report

    async def _answer(self, call: Call) -> Answer:
        try:
            return await asyncio.shield(call.task)
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if (current is not None and current.cancelling()) or not call.cancelled:
                raise  # the SDK ends this request; where the client broke off without a cancel, the code runs on
            return refusal("the call was cancelled; its code was interrupted, the session is still there.")

    async def _serve_sse(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._connections.full:
            self._bus.publish(AccessRefused(reason="full", path=scope["path"]))
            sentence = (
                f"{self._connections.limit} connections are open, and no more are taken. Try again in half a minute."
            )
            await JSONResponse({"error": f"Error: {sentence}"}, 503, {"Retry-After": "30"})(scope, receive, send)
            return
        self._bus.publish(ConnectionChanged(transport="sse", open=True))
        try:
            async with (
                self._connections.one() as connection,
                self._sse.connect_sse(scope, receive, connection.timed(send)) as (read, write),
            ):
                bounded: Any = BoundedStream(write, connection)
                await self._server.run(read, bounded, self._server.create_initialization_options())
        finally:
            self._bus.publish(ConnectionChanged(transport="sse", open=False))

    async def _serve_messages(self, scope: Scope, receive: Receive, send: Send) -> None:
        query = parse_qs(scope["query_string"].decode("latin-1"))
        scope[_CONNECTION] = query.get("session_id", [""])[0]
        await self._messages(scope, receive, send)

    async def _serve_requests(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            # without sessions there is no stream to listen on, and the specification wants 405 then
            await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
            return
        await self._requests(scope, receive, send)

    async def _serve_schema(self, request: Request) -> JSONResponse:
        """The tools in the form of Gradio's own schema route; `?tools=a,b` picks some."""
        wanted = request.query_params.get("tools")
        names = set(wanted.split(",")) if wanted else set(self._toolbox.tools)
        tools = [tool for tool in self._toolbox.tools.values() if tool.name in names]
        return JSONResponse(
            [
                {
                    "name": tool.name,
                    "description": tool.description,
                    "inputSchema": tool.schema,
                    "meta": {"file_data_present": False, "mcp_type": "tool", "endpoint_name": tool.name},
                }
                for tool in tools
            ]
        )

    def _cancel_on_connection(self, scope: Scope, request_id: str | int) -> None:
        self._calls.cancel_on_connection(scope[_CONNECTION], request_id)

    def _cancel_by_caller(self, scope: Scope, request_id: str | int) -> None:
        with contextlib.suppress(BadIdentity):
            self._calls.cancel_by_caller(self._caller(scope), request_id)

    def _caller(self, scope: Scope) -> Caller:
        return caller_of(scope["headers"], single_user=self._single_user)

    def _oversize(self, scope: Scope) -> None:
        self._bus.publish(AccessRefused(reason="size", path=scope["path"]))


class _Asgi:
    """Makes a bound method an ASGI application: Starlette takes a bare function for an endpoint of its own kind."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def _tool_type(tool: Tool, *, app: bool = False) -> ToolType:
    return ToolType(
        _meta=apps.TOOL_META if app and tool.shown else None,
        name=tool.name,
        title=tool.title,
        description=tool.description,
        inputSchema=tool.schema,
        outputSchema=dict(tool.output),
        annotations=ToolAnnotations(
            readOnlyHint=tool.hints.read_only,
            destructiveHint=tool.hints.destructive,
            idempotentHint=tool.hints.idempotent,
            openWorldHint=tool.hints.open_world,
        ),
    )


def _result(answer: Answer) -> CallToolResult:
    # `model_construct`: everything in here is ours and of the right type; validating it again would cost more than
    # the rest of the call
    content: list[Any] = [TextContent.model_construct(type="text", text=text) for text in answer.texts]
    content += [
        ImageContent.model_construct(type="image", data=picture.data, mimeType=picture.mime)
        for picture in answer.pictures
    ]
    content += [
        # validated, and not constructed: the SDK writes an address only where it knows it for one
        EmbeddedResource.model_validate(
            {"type": "resource", "resource": {"uri": view.uri, "mimeType": MIME, "text": view.html}}
        )
        for view in answer.views
    ]
    return CallToolResult.model_construct(
        content=content, structuredContent=answer.structured, isError=answer.is_error, meta=answer.meta
    )


def _guard_double_answers() -> None:
    """Keep a cancel that meets an answer from ending the connection with every other call on it.

    `RequestResponder` answers a cancelled request itself and then asserts that nobody answers it again
    (modelcontextprotocol/python-sdk issue 2416); and a cancel that arrives while the answer is on its way leaves the
    task with a CancelledError, which ends the connection's task group.
    """
    original = RequestResponder.respond
    if getattr(original, "_guarded", False):
        return

    async def respond(self: RequestResponder[Any, Any], response: Any) -> None:
        if self._completed:
            return
        try:
            await original(self, response)
        except asyncio.CancelledError:
            if not self.cancelled:
                raise

    respond._guarded = True  # type: ignore[attr-defined]
    RequestResponder.respond = respond  # type: ignore[method-assign]
