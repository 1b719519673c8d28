"""Code that outlives the patience of its caller, through real clients."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.librechat_client import HOW_TO, ClientError, LibreChat, install, librechat, said
from tests.e2e.running import RunningSpace, client, data_of, identity, text_of

SLOW = "import time\nfor n in range({}):\n    print('step', n, flush=True)\n    time.sleep(0.5)\n'the end'"


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """A Space that lets go of code after a second."""
    running = RunningSpace.start(tmp_path_factory.mktemp("space"), SOFT_WAIT="1")
    yield running
    running.stop()


@pytest.fixture
def me() -> dict[str, str]:
    """A user in a conversation that no other test knows."""
    return identity(f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}")


@pytest.fixture
async def chat() -> AsyncIterator[LibreChat]:
    """A Node process that plays LibreChat."""
    if not install():
        pytest.skip(HOW_TO)
    async with librechat() as running:
        yield running


async def test_a_long_cell_is_started_asked_for_and_had_within_the_clients_limit(
    impatient: RunningSpace, chat: LibreChat, transport: str, me: dict[str, str]
) -> None:
    """With a limit of 4 s for every call, a cell of about 6 s."""
    await chat.connect("main", transport, impatient.url, me)
    result = await chat.call("main", "execute_python_code", {"code": SLOW.format(12), "timeout": 60}, timeout=4)
    assert result["structuredContent"]["status"] == "running" and not result["isError"]
    assert "get_execution_result" in said(result)
    execution_id = result["structuredContent"]["execution_id"]
    assert execution_id in said(result)
    asked, partial = 0, False
    while result["structuredContent"]["status"] == "running":
        partial |= "step" in said(result)
        result = await chat.call("main", "get_execution_result", {"execution_id": execution_id}, timeout=4)
        asked += 1
    assert partial, "what was printed so far was never told"
    assert asked > 1 and "the end" in said(result) and "step 11" in said(result)
    again = await chat.call("main", "get_execution_result", {}, timeout=4)
    assert said(again) == said(result)


async def test_a_long_cell_is_stopped_and_keeps_its_variables(
    impatient: RunningSpace, chat: LibreChat, transport: str, me: dict[str, str]
) -> None:
    await chat.connect("main", transport, impatient.url, me)
    code = "kept = 7\n" + SLOW.format(100)
    await chat.call("main", "execute_python_code", {"code": code, "timeout": 60}, timeout=4)
    second = await chat.call("main", "execute_python_code", {"code": "kept"}, timeout=4)
    assert second["isError"] and "interrupt_execution" in said(second) and "execution_id" in said(second)
    stopped = await chat.call("main", "interrupt_execution", {}, timeout=4)
    assert stopped["structuredContent"]["interrupted"] is True
    ended = await chat.call("main", "get_execution_result", {}, timeout=4)
    while ended["structuredContent"]["status"] == "running":
        ended = await chat.call("main", "get_execution_result", {}, timeout=4)
    assert ended["structuredContent"]["status"] == "interrupted" and "step 0" in said(ended)
    assert said(await chat.call("main", "execute_python_code", {"code": "kept"}, timeout=10)).startswith("7\n")


async def test_stop_pressed_while_waiting_for_the_result_ends_the_waiting_alone(
    impatient: RunningSpace, chat: LibreChat, transport: str, me: dict[str, str]
) -> None:
    await chat.connect("main", transport, impatient.url, me)
    await chat.call("main", "execute_python_code", {"code": SLOW.format(16), "timeout": 60})
    # the answer may come before Stop is heard: then again
    for _ in range(5):
        call, waiting = chat.begin("main", "get_execution_result", {})
        await asyncio.sleep(0.3)
        await chat.abort(call)
        (stopped,) = await asyncio.gather(waiting, return_exceptions=True)
        if isinstance(stopped, ClientError):
            break
    assert isinstance(stopped, ClientError)
    result = await chat.call("main", "get_execution_result", {})
    while result["structuredContent"]["status"] == "running":
        result = await chat.call("main", "get_execution_result", {})
    assert result["structuredContent"]["status"] == "ok"


async def test_a_conversation_without_code_has_no_result(impatient: RunningSpace, me: dict[str, str]) -> None:
    async with client(impatient, "http", me) as session:
        result = await session.call_tool("get_execution_result", {})
        assert result.isError and "Nothing was run" in text_of(result)
        wrong = await session.call_tool("get_execution_result", {"execution_id": "x", "wait": 99})
        assert wrong.isError and "at most 1" in text_of(wrong)


async def test_a_client_that_asks_for_progress_hears_the_newest_line(
    space: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    heard: list[tuple[float, str | None]] = []

    async def listen(progress: float, total: float | None, message: str | None) -> None:
        heard.append((progress, message))

    async with client(space, transport, me) as session:
        result = await session.call_tool("execute_python_code", {"code": SLOW.format(8)}, progress_callback=listen)
        assert data_of(result)["status"] == "ok"
        quiet = len(heard)
        await session.call_tool("execute_python_code", {"code": "1"}, progress_callback=listen)
    assert len(heard) == quiet >= 2
    assert [seconds for seconds, _ in heard] == sorted({seconds for seconds, _ in heard})
    assert all(re.fullmatch(r"step \d", line or "") for _, line in heard)


async def test_a_client_that_leaves_does_not_end_code_that_it_was_told_runs_on(
    impatient: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    async with client(impatient, transport, me) as session:
        await session.call_tool("execute_python_code", {"code": SLOW.format(5), "timeout": 60})
    async with client(impatient, transport, me) as session:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            result = await session.call_tool("get_execution_result", {})
            if data_of(result)["status"] != "running":
                break
    assert data_of(result)["status"] == "ok" and "the end" in text_of(result)
