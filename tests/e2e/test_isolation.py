"""Nobody sees what is somebody else's."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession

from tests.e2e.running import RunningSpace, client, data_of, identity, text_of


@asynccontextmanager
async def two(
    space: RunningSpace, transport: str, one: dict[str, str], other: dict[str, str]
) -> AsyncIterator[tuple[ClientSession, ClientSession]]:
    async with client(space, transport, one) as first, client(space, transport, other) as second:
        yield first, second


def others(kind: str) -> tuple[dict[str, str], dict[str, str]]:
    """Headers of two callers who must not see each other."""
    user, conversation = f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}"
    if kind == "two users":
        return identity(user, conversation), identity(f"{user}-other", conversation)
    return identity(user, conversation), identity(user, f"{conversation}-other")


@pytest.mark.parametrize("kind", ["two users", "two conversations"])
async def test_two_callers_share_neither_variables_nor_files_nor_ids(
    space: RunningSpace, transport: str, kind: str
) -> None:
    mine, theirs = others(kind)
    async with two(space, transport, mine, theirs) as (me, other):
        made = data_of(await me.call_tool("execute_python_code", {"code": "secret = 'mine'"}))["session_id"]
        await me.call_tool("upload_file", {"path": "secret.txt", "content": "mine"})
        unseen = await other.call_tool("execute_python_code", {"code": "secret"})
        assert text_of(unseen).startswith("Error: NameError")
        assert data_of(unseen)["session_id"] != made
        assert data_of(await other.call_tool("list_files", {}))["files"] == []
        listed = json.loads(text_of(await other.call_tool("list_execution_sessions", {})))
        assert made not in {session["session_id"] for session in listed["sessions"]}
        foreign: list[tuple[str, dict[str, Any]]] = [
            ("execute_python_code", {"code": "secret"}),
            ("execute_javascript_code", {"code": "1"}),
            ("execute_bash_command", {"command": "cat secret.txt"}),
            ("get_execution_history", {}),
            ("close_execution_session", {}),
            ("interrupt_execution", {}),
            ("list_files", {}),
            ("download_file", {"path": "secret.txt"}),
            ("upload_file", {"path": "secret.txt", "content": "theirs"}),
            ("upload_file", {"path": "secret.txt", "content": "theirs", "final": False}),
            ("delete_file", {"path": "secret.txt"}),
        ]
        for name, arguments in foreign:
            refused = await other.call_tool(name, {**arguments, "session_id": made})
            unknown = await other.call_tool(name, {**arguments, "session_id": "A" * len(made)})
            assert refused.isError, name
            assert text_of(refused).replace(made, "A" * len(made)) == text_of(unknown), name
            assert "no session" in text_of(refused)
        kept = await me.call_tool("download_file", {"path": "secret.txt"})
        assert data_of(kept)["content"] == "mine"
        assert text_of(await me.call_tool("execute_python_code", {"code": "secret"})).startswith("'mine'")


async def test_without_headers_each_call_has_a_session_of_its_own_and_none_is_listed(
    space: RunningSpace, transport: str
) -> None:
    async with two(space, transport, {}, {}) as (one, other):
        first = await one.call_tool("execute_python_code", {"code": "secret = 1"})
        second = await one.call_tool("execute_python_code", {"code": "secret"})
        assert text_of(second).startswith("Error: NameError")
        assert "X-User-Id" in text_of(first) and "X-Conversation-Id" in text_of(first)
        for session in (one, other):
            listed = json.loads(text_of(await session.call_tool("list_execution_sessions", {})))
            assert listed["sessions"] == [] and listed["count"] == 0 and "X-User-Id" in listed["note"]
        again = await one.call_tool(
            "execute_python_code", {"code": "secret + 1", "session_id": data_of(first)["session_id"]}
        )
        assert text_of(again) == f"2\nsession_id: {data_of(first)['session_id']}"
        refused = await other.call_tool("list_files", {})
        assert refused.isError and "session_id is needed" in text_of(refused)


async def test_a_file_sent_without_headers_goes_on_in_the_session_that_its_first_part_made(space: RunningSpace) -> None:
    async with client(space, "sse") as session:
        first = await session.call_tool("upload_file", {"path": "a.txt", "content": "ab", "final": False})
        lost = await session.call_tool("upload_file", {"path": "a.txt", "content": "cd", "offset": 2})
        assert lost.isError and "session_id is needed" in text_of(lost)
        made = data_of(first)["session_id"]
        last = await session.call_tool(
            "upload_file", {"path": "a.txt", "content": "cd", "offset": 2, "session_id": made}
        )
        assert data_of(last) == {"session_id": made, "path": "a.txt", "size": 4, "complete": True}
        got = await session.call_tool("download_file", {"path": "a.txt", "session_id": made})
        assert data_of(got)["content"] == "abcd"


async def test_a_conversation_alone_identifies_nobody(space: RunningSpace) -> None:
    headers = {"X-Conversation-Id": "guessable", "X-User-Id": "{{LIBRECHAT_USER_ID}}"}
    async with two(space, "http", headers, headers) as (one, other):
        await one.call_tool("execute_python_code", {"code": "secret = 1"})
        unseen = await other.call_tool("execute_python_code", {"code": "secret"})
    assert text_of(unseen).startswith("Error: NameError")


@pytest.mark.parametrize("user", ["anonymous", "page:x", "a\tb", "x" * 300, "b64:%%%"])
async def test_an_identity_that_cannot_be_one_is_refused_with_a_sentence(space: RunningSpace, user: str) -> None:
    async with client(space, "http", {"X-User-Id": user}) as session:
        refused = await session.call_tool("execute_python_code", {"code": "1"})
    assert refused.isError and text_of(refused).startswith("Error: X-User-Id")


async def test_single_user_gives_callers_without_headers_one_owner(tmp_path: Path) -> None:
    offered = {"execute_python_code", "list_execution_sessions"}
    alone = await asyncio.to_thread(RunningSpace.start, tmp_path, SINGLE_USER="1", TOOLS=",".join(offered))
    try:
        async with two(alone, "sse", {}, {}) as (one, other):
            assert {tool.name for tool in (await one.list_tools()).tools} == offered
            made = data_of(await one.call_tool("execute_python_code", {"code": "x = 1"}))["session_id"]
            listed = json.loads(text_of(await other.call_tool("list_execution_sessions", {})))
            assert [session["session_id"] for session in listed["sessions"]] == [made]
            shared = await other.call_tool("execute_python_code", {"code": "x", "session_id": made})
            assert text_of(shared).startswith("1\n")
            hidden = await one.call_tool("get_system_info", {})
            assert hidden.isError and "no tool" in text_of(hidden)
    finally:
        await asyncio.to_thread(alone.stop)
