"""The TypeScript SDK, used as LibreChat uses it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import yaml

from space.librechat import yaml_block
from tests.e2e.gateway import TOKEN, gateway
from tests.e2e.librechat_client import HOW_TO, ClientError, LibreChat, checked_config, install, librechat, said
from tests.e2e.running import RunningSpace, identity


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    """The TypeScript client; without a network and without an earlier installation there is none."""
    if not install():
        pytest.skip(HOW_TO)


@pytest.fixture
def me() -> dict[str, str]:
    """A user in a conversation that no other test knows."""
    return identity(f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}")


@pytest.fixture
async def chat() -> AsyncIterator[LibreChat]:
    """A Node process that plays LibreChat."""
    async with librechat() as running:
        yield running


async def python(chat: LibreChat, code: str, client: str = "main") -> dict[str, Any]:
    result: dict[str, Any] = await chat.call(client, "execute_python_code", {"code": code})
    return result


async def gone(space: RunningSpace, marker: str, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not await asyncio.to_thread(space.running, marker):
            return True
        await asyncio.sleep(0.1)
    return False


async def there(space: RunningSpace, marker: str, seconds: float = 20.0) -> list[psutil.Process]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := await asyncio.to_thread(space.running, marker):
            return found
        await asyncio.sleep(0.05)
    raise AssertionError(f"{marker} never ran")


async def test_it_connects_reads_the_instructions_and_keeps_variables(
    space: RunningSpace, chat: LibreChat, transport: str, me: dict[str, str]
) -> None:
    met = await chat.connect("main", transport, space.url, me)
    assert met["server"]["name"] == "code-interpreter" and "session_id" in met["instructions"]
    await python(chat, "x = 41")
    result = await python(chat, "print(x + 1)")
    assert said(result).startswith("42\nsession_id: ") and not result["isError"]


async def test_a_2x2_figure_arrives_as_a_picture_within_the_budget(
    space: RunningSpace, chat: LibreChat, transport: str, me: dict[str, str]
) -> None:
    await chat.connect("main", transport, space.url, me)
    result = await python(chat, "fig, ax = plt.subplots(2, 2)\nfor a in ax.flat: a.hist(np.random.randn(200))")
    pictures = [block for block in result["content"] if block["type"] == "image"]
    assert len(pictures) == 1 and len(pictures[0]["data"]) + len(said(result)) <= 140_000


async def test_stop_ends_the_code_within_a_second_and_nothing_else(
    space: RunningSpace, chat: LibreChat, transport: str, me: dict[str, str]
) -> None:
    await chat.connect("main", transport, space.url, me)
    other = {**me, "X-Conversation-Id": f"{me['X-Conversation-Id']}-other"}
    await chat.connect("other", transport, space.url, other)
    marker = f"{secrets.randbelow(10**6) + 10**6}.5"
    await python(chat, "kept = 'yes'")
    beside, beside_result = chat.begin(
        "other", "execute_python_code", {"code": "import time; time.sleep(4); 'unharmed'"}
    )
    call, result = chat.begin("main", "execute_bash_command", {"command": f"sleep {marker}"})
    await there(space, marker)
    began = time.monotonic()
    await chat.abort(call)
    with pytest.raises(ClientError):
        await result
    assert await gone(space, marker)
    assert time.monotonic() - began < 10  # 1 s on a machine of its own
    assert said(await python(chat, "kept")).startswith("'yes'")
    assert "unharmed" in said(await beside_result)
    state = await chat.ask("state", client="main")
    assert state["closed"] is False
    assert beside != call


async def test_the_clients_own_timeout_ends_the_code(
    space: RunningSpace, chat: LibreChat, transport: str, me: dict[str, str]
) -> None:
    await chat.connect("main", transport, space.url, me)
    await python(chat, "kept = 1")
    marker = f"{secrets.randbelow(10**6) + 10**6}.25"
    with pytest.raises(ClientError) as caught:
        await chat.call("main", "execute_bash_command", {"command": f"sleep {marker}", "timeout": 60}, timeout=2)
    assert caught.value.code == -32001  # the SDK's code for its own timeout
    assert await gone(space, marker)
    assert said(await python(chat, "kept")).startswith("1\n")


async def test_20_running_calls_cancelled_one_after_the_other_cost_no_connection(
    space: RunningSpace, chat: LibreChat, me: dict[str, str]
) -> None:
    await chat.connect("main", "sse", space.url, me)
    await python(chat, "count = 0\nimport time")
    marker = f"{secrets.randbelow(10**6) + 10**6}.125"
    running: list[tuple[str, dict[str, str]]] = [
        ("execute_python_code", {"code": "count += 1\nwhile True: time.sleep(0.01)"}),
        ("execute_python_code", {"code": "count += 1\nwhile True: pass"}),
        ("execute_bash_command", {"command": f"sleep {marker} & sleep {marker}; wait"}),
        ("execute_javascript_code", {"code": "while (true) {}"}),
    ]
    for number in range(20):
        call, result = chat.begin("main", *running[number % 4])
        beside = chat.begin("main", "list_execution_sessions", {})[1]
        await asyncio.sleep(0.05 * (number % 7))
        await chat.abort(call)
        with pytest.raises(ClientError):
            await result
        assert '"count": 1' in said(await beside)
    state = await chat.ask("state", client="main")
    assert state["closed"] is False and not [error for error in state["errors"] if "close" in error.lower()]
    assert 0 <= int(said(await python(chat, "count")).split("\n")[0]) <= 10
    for name, arguments in (("javascript_code", {"code": "6 * 7"}), ("bash_command", {"command": "echo $((6 * 7))"})):
        assert said(await chat.call("main", f"execute_{name}", arguments)).startswith("42\n")
    assert await gone(space, marker)
    listed = await chat.call("main", "list_execution_sessions", {})
    assert listed["structuredContent"]["sessions"][0]["running"] is None


async def test_a_cancel_that_meets_the_answer_costs_no_connection(
    space: RunningSpace, chat: LibreChat, me: dict[str, str]
) -> None:
    await chat.connect("main", "sse", space.url, me)
    await python(chat, "import time")
    for number in range(30):
        call, result = chat.begin("main", "execute_python_code", {"code": "time.sleep(0.02)"})
        await asyncio.sleep(0.016 + 0.0005 * number)
        await chat.abort(call)
        await asyncio.gather(result, return_exceptions=True)
    assert said(await python(chat, "6 * 7")).startswith("42\n")
    assert (await chat.ask("state", client="main"))["closed"] is False


async def test_a_connection_that_breaks_off_leaves_the_code_running(
    space: RunningSpace, chat: LibreChat, me: dict[str, str]
) -> None:
    """The specification: a disconnect is no cancel."""
    await chat.connect("main", "sse", space.url, me)
    await chat.connect("gone", "sse", space.url, me)
    code = (
        "import time, pathlib\nbegun = pathlib.Path('begun').write_text('')\ntime.sleep(5)\n"
        "done = pathlib.Path('done').write_text('yes')"
    )
    _, lost = chat.begin("gone", "execute_python_code", {"code": code})
    async with asyncio.timeout(30):
        while "begun" not in said(await chat.call("main", "list_files", {})):
            await asyncio.sleep(0.1)
    await chat.ask("close", client="gone")
    with pytest.raises(ClientError):
        await lost
    assert said(await python(chat, "done")).startswith("3\n")


async def test_the_recipes_own_yaml_and_calls_work(space: RunningSpace, chat: LibreChat) -> None:
    recipe = yaml.safe_load(
        """
        version: 1.2.1
        mcpServers:
          code-interpreter:
            type: sse
            url: https://YOUR_USERNAME-librechat-code-interpreter.hf.space/gradio_api/mcp/sse
            headers:
              Authorization: "Bearer ${HF_TOKEN}"
              Content-Type: "application/json"
            serverInstructions: "You can run code."
        """
    )
    assert checked_config(recipe)["success"]
    server = recipe["mcpServers"]["code-interpreter"]
    headers = {name: value.replace("${HF_TOKEN}", TOKEN) for name, value in server["headers"].items()}
    assert server["url"].endswith("/gradio_api/mcp/sse")
    await chat.connect("main", "sse", space.url, headers)
    made = await chat.call("main", "create_execution_session", {})
    session = made["structuredContent"]["session_id"]
    await chat.call("main", "execute_python_code", {"code": "x = 41", "session_id": session})
    result = await chat.call("main", "execute_python_code", {"code": "print(x + 1)", "session_id": session})
    assert said(result) == f"42\nsession_id: {session}"


async def test_librechat_over_sse_with_a_hugging_face_token(
    space: RunningSpace, chat: LibreChat, transport: str, me: dict[str, str]
) -> None:
    port = int(space.url.rsplit(":", 1)[1])
    for header in ("Authorization", "X-HF-Authorization"):
        async with gateway(port) as private:
            with pytest.raises(ClientError, match=r"404|Not Found"):
                await chat.connect("stranger", transport, private.url, me)
            assert private.refused and not private.seen
            name = f"{header}-{transport}"
            await chat.connect(name, transport, private.url, {**me, header: f"Bearer {TOKEN}"})
            result = await python(chat, "print(6 * 7)", client=name)
            assert said(result).startswith("42\n")
            call, stopped = chat.begin(name, "execute_python_code", {"code": "while True: pass"})
            await asyncio.sleep(0.5)
            await chat.abort(call)
            with pytest.raises(ClientError):
                await stopped
            assert said(await python(chat, "print('again')", client=name)).startswith("again\n")
            # the token travels on in the one header, and is spent on the way in the other
            assert all(("authorization" in seen) == (header == "Authorization") for seen in private.seen)
            assert all("x-hf-authorization" not in seen for seen in private.seen)
            await chat.ask("close", client=name)


@pytest.mark.parametrize("version", ["0.8.7", "0.8.8"])
@pytest.mark.parametrize("address", ["https://owner-space.hf.space", "http://127.0.0.1:7860"])
@pytest.mark.parametrize("kind", ["sse", "streamable-http"])
def test_librechats_own_schema_takes_our_yaml_and_keeps_every_key(version: str, address: str, kind: Any) -> None:
    block = yaml.safe_load(yaml_block(address, transport=kind, version=version, access_key=True, whole_file=True))
    answer = checked_config(block)
    assert answer["success"], answer
    assert answer["servers"]["code"] == block["mcpServers"]["code"]


def test_librechats_own_schema_refuses_a_key_that_is_none() -> None:
    assert not checked_config({"version": "1.3.14", "mcpServer": {}})["success"]
