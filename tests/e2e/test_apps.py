"""MCP Apps: a client that says it shows views gets them beside the text, and one that does not is none the wiser."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import ClientSession, McpError
from mcp.client.sse import sse_client
from mcp.types import (
    LATEST_PROTOCOL_VERSION,
    ClientCapabilities,
    ClientNotification,
    ClientRequest,
    EmbeddedResource,
    Implementation,
    InitializedNotification,
    InitializeRequest,
    InitializeRequestParams,
    InitializeResult,
    TextResourceContents,
)
from pydantic import AnyUrl

from tests.e2e.running import RunningSpace, client, data_of, identity, text_of

MIME = "text/html;profile=mcp-app"
FIGURE = (
    "class F:\n    def _repr_mimebundle_(self, **kw):\n"
    "        return {'application/vnd.plotly.v1+json': {'data': [{'type': 'bar'}], 'layout': {}},"
    " 'text/html': '<div></div><script>1</script>'}\nF()"
)
SHOWN = {"execute_python_code", "execute_javascript_code", "execute_bash_command", "get_execution_result"}


@asynccontextmanager
async def app_client(space: RunningSpace, **capabilities: Any) -> AsyncIterator[ClientSession]:
    """A client over SSE that advertises these capabilities, which the SDK's own does not know of."""
    headers = identity(f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}")
    async with (
        sse_client(f"{space.url}/gradio_api/mcp/sse", headers=headers) as (read, write),
        ClientSession(read, write, read_timeout_seconds=timedelta(seconds=60)) as session,
    ):
        params = InitializeRequestParams(
            protocolVersion=LATEST_PROTOCOL_VERSION,
            capabilities=ClientCapabilities.model_validate(capabilities),
            clientInfo=Implementation(name="test", version="1"),
        )
        await session.send_request(ClientRequest(InitializeRequest(params=params)), InitializeResult)
        await session.send_notification(ClientNotification(InitializedNotification()))
        yield session


@pytest.mark.parametrize("place", ["extensions", "experimental"])
async def test_a_client_of_mcp_apps_gets_the_view_and_what_it_shows(space: RunningSpace, place: str) -> None:
    async with app_client(space, **{place: {"io.modelcontextprotocol/ui": {"mimeTypes": [MIME]}}}) as session:
        tools = (await session.list_tools()).tools
        uris = {tool.name: tool.meta["ui"]["resourceUri"] for tool in tools if tool.meta}
        assert uris.keys() == SHOWN
        (uri,) = set(uris.values())
        assert [str(resource.uri) for resource in (await session.list_resources()).resources] == [uri]
        (content,) = (await session.read_resource(AnyUrl(uri))).contents
        assert isinstance(content, TextResourceContents)
        assert content.mimeType == MIME and content.text.startswith("<!doctype html>")
        assert content.meta and content.meta["ui"]["csp"] == {"resourceDomains": ["https:"]}
        result = await session.call_tool("execute_python_code", {"code": FIGURE})
        assert result.meta == {"code-interpreter/views": ["<div></div><script>1</script>"]}
        assert not [block for block in result.content if isinstance(block, EmbeddedResource)]
        assert text_of(result).startswith(
            "Interactive plotly figure: 1 bar\nShown to the person: 1 interactive view.\nsession_id: "
        )
        plain = await session.call_tool("execute_python_code", {"code": "print(1)"})
        assert plain.meta is None
        with pytest.raises(McpError, match="There is no resource"):
            await session.read_resource(AnyUrl("ui://code-interpreter/other"))


@pytest.mark.parametrize("kinds", [None, ["text/html"], MIME])
async def test_a_client_that_does_not_name_the_type_gets_the_other_form(space: RunningSpace, kinds: object) -> None:
    extension = {} if kinds is None else {"mimeTypes": kinds}
    async with app_client(space, extensions={"io.modelcontextprotocol/ui": extension}) as session:
        assert not [tool for tool in (await session.list_tools()).tools if tool.meta]
        assert (await session.list_resources()).resources == []
        result = await session.call_tool("execute_python_code", {"code": FIGURE})
        assert [block.type for block in result.content] == ["text", "resource"]
        assert result.meta is None


async def test_over_stateless_http_nothing_is_said_of_apps(space: RunningSpace) -> None:
    async with client(space, "http") as session:
        assert not [tool for tool in (await session.list_tools()).tools if tool.meta]


@pytest.fixture
def all_views(tmp_path: Path) -> Any:
    running = RunningSpace.start(tmp_path, UI_RESOURCES="all")
    yield running
    running.stop()


async def test_new_files_are_a_card_where_all_views_are_wanted(all_views: RunningSpace, space: RunningSpace) -> None:
    code = "for n in ('a.csv', '<b>.txt'): open(n, 'w').write('1,2')"
    me = identity(f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}")
    async with client(all_views, "http", me) as session:
        result = await session.call_tool("execute_python_code", {"code": code})
    (card,) = (block.resource for block in result.content if isinstance(block, EmbeddedResource))
    assert isinstance(card, TextResourceContents) and str(card.uri).endswith("/files")
    for file in data_of(result)["files"]:
        assert file["url"] in card.text and file["url"] in text_of(result)
    assert ">a.csv</a> <small>3 bytes</small>" in card.text and "<b>" not in card.text
    async with client(space, "http", me) as session:
        result = await session.call_tool("execute_python_code", {"code": code})
    assert [block.type for block in result.content] == ["text"]


async def test_a_session_is_exported_by_link(space: RunningSpace) -> None:
    me = identity(f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}")
    async with client(space, "sse", me) as session, httpx.AsyncClient() as http:
        empty = await session.call_tool("export_session", {})
        assert empty.isError and "nothing has run" in text_of(empty)
        await session.call_tool("execute_python_code", {"code": "open('a.csv', 'w').write('1'); 6 * 7"})
        result = await session.call_tool("export_session", {})
        url = data_of(result)["url"]
        assert text_of(result).startswith(f"Jupyter notebook with 1 cell and 0 pictures: {url}\nGive this link")
        made = (await http.get(url)).json()
        assert made["cells"][1]["outputs"][0]["data"]["text/plain"] == "42"
        result = await session.call_tool("export_session", {"format": "zip"})
        assert text_of(result).startswith("zip with 1 file (1 byte) and a Jupyter notebook of 1 cell: ")
        assert (await http.get(data_of(result)["url"])).content[:2] == b"PK"
