"""The tools, called by the Python SDK's client over both transports."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from typing import Any

import httpx
import pytest

from tests.e2e.running import RunningSpace, client, data_of, identity, pictures_of, text_of

RECIPE_TOOLS = {
    "execute_python_code",
    "execute_javascript_code",
    "execute_bash_command",
    "create_execution_session",
    "list_execution_sessions",
    "get_execution_history",
    "get_system_info",
}
RESULT_KEYS = {"success", "stdout", "stderr", "execution_time", "return_code", "session_id", "plot"}


@pytest.fixture
def me() -> dict[str, str]:
    """A user in a conversation that no other test knows."""
    return identity(f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}")


async def test_the_tools_are_listed_with_schemas_and_hints(space: RunningSpace, transport: str) -> None:
    async with client(space, transport) as session:
        tools = {tool.name: tool for tool in (await session.list_tools()).tools}
    assert tools.keys() >= RECIPE_TOOLS
    for tool in tools.values():
        assert tool.outputSchema and tool.annotations and tool.title
    timeout = tools["execute_python_code"].inputSchema["properties"]["timeout"]
    assert (timeout["default"], timeout["maximum"]) == (30, 600)
    assert tools["list_files"].annotations.readOnlyHint and tools["delete_file"].annotations.destructiveHint  # type: ignore[union-attr]


async def test_names_descriptions_and_input_schemas_are_short(space: RunningSpace) -> None:
    async with client(space, "sse") as session:
        tools = (await session.list_tools()).tools
    size = sum(len(tool.name) + len(tool.description or "") + len(json.dumps(tool.inputSchema)) for tool in tools)
    assert size < 10_000


async def test_a_printed_sum_costs_two_lines(space: RunningSpace, transport: str, me: dict[str, str]) -> None:
    async with client(space, transport, me) as session:
        result = await session.call_tool("execute_python_code", {"code": "print(1+1)"})
    assert text_of(result) == f"2\nsession_id: {data_of(result)['session_id']}"
    assert not result.isError


async def test_variables_last_without_a_session_id(space: RunningSpace, transport: str, me: dict[str, str]) -> None:
    async with client(space, transport, me) as session:
        await session.call_tool("execute_python_code", {"code": "x = 41"})
        result = await session.call_tool("execute_python_code", {"code": "print(x + 1)"})
    assert data_of(result)["stdout"] == "42\n"


async def test_variables_outlive_the_connection(space: RunningSpace, me: dict[str, str]) -> None:
    async with client(space, "sse", me) as session:
        await session.call_tool("execute_python_code", {"code": "kept = 'yes'"})
    async with client(space, "http", me) as session:
        result = await session.call_tool("execute_python_code", {"code": "kept"})
    assert "'yes'" in text_of(result)


async def test_a_constant_can_be_declared_again(space: RunningSpace, transport: str, me: dict[str, str]) -> None:
    async with client(space, transport, me) as session:
        for value in (1, 2):
            result = await session.call_tool("execute_javascript_code", {"code": f"const a = {value}; a * 10"})
            assert not result.isError, text_of(result)
    assert text_of(result).startswith("20\n")


async def test_cd_and_export_last(space: RunningSpace, transport: str, me: dict[str, str]) -> None:
    async with client(space, transport, me) as session:
        await session.call_tool("execute_bash_command", {"command": "mkdir -p sub; cd sub; export WORD=kept"})
        result = await session.call_tool("execute_bash_command", {"command": 'echo "$WORD $(basename "$PWD")"'})
    assert data_of(result)["stdout"] == "kept sub\n"


async def test_four_axes_come_back_as_one_picture_within_the_budget(
    space: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    code = "fig, axes = plt.subplots(2, 2)\nfor a in axes.flat: a.plot(np.random.rand(50))\nfig.suptitle('Four')"
    async with client(space, transport, me) as session:
        result = await session.call_tool("execute_python_code", {"code": code})
    assert not result.isError, text_of(result)
    (picture,) = pictures_of(result)
    assert len(picture.data) + len(text_of(result)) <= 140_000
    assert base64.b64decode(picture.data, validate=True)[:4] in (b"\x89PNG", b"RIFF")
    described = [output["picture"] for output in data_of(result)["outputs"] if output["picture"]]
    assert described[0]["type"] == picture.mimeType
    assert described[0]["path"] in text_of(result)


async def test_an_error_of_the_code_is_told_and_the_variables_stay(
    space: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    async with client(space, transport, me) as session:
        failed = await session.call_tool("execute_python_code", {"code": "y = 5\nprint('before')\n1/0"})
        after = await session.call_tool("execute_python_code", {"code": "y"})
    assert failed.isError and text_of(failed).startswith("Error: ZeroDivisionError: division by zero (line 3)\nbefore")
    assert data_of(failed)["success"] is False and data_of(failed)["error"]["line"] == 3
    assert text_of(after).startswith("5\n")


async def test_the_recipes_calls_work_word_for_word(space: RunningSpace, transport: str) -> None:
    """As in the recipe: no identity headers, the token's header, a session made first and then named."""
    sent = {"Authorization": "Bearer hf_x", "Content-Type": "application/json"}
    async with client(space, "sse", sent) if transport == "sse" else client(space, "http") as session:
        made = await session.call_tool("create_execution_session", {})
        created = json.loads(text_of(made))
        assert created.keys() >= {"session_id", "created_at"}
        named = {"session_id": created["session_id"]}
        await session.call_tool("execute_python_code", {"code": "df = pd.DataFrame({'a': [1, 2]})", **named})
        summed = await session.call_tool("execute_python_code", {"code": "print(df.a.sum())", **named})
        assert data_of(summed).keys() >= RESULT_KEYS and data_of(summed)["stdout"] == "3\n"
        shown = await session.call_tool("execute_javascript_code", {"code": "console.log('js')", "session_id": None})
        assert data_of(shown)["stdout"] == "js\n" and data_of(shown)["session_id"] != created["session_id"]
        echoed = await session.call_tool("execute_bash_command", {"command": "echo hi", **named})
        assert data_of(echoed)["stdout"] == "hi\n" and data_of(echoed)["return_code"] == 0
        history = json.loads(text_of(await session.call_tool("get_execution_history", named)))
        assert history.keys() >= {"session_id", "history", "created_at"}
        assert [entry["language"] for entry in history["history"]] == ["python", "python", "bash"]
        assert history["history"][1].keys() == {"code", "language", "result", "timestamp"}
        assert history["history"][1]["result"]["stdout"] == "3\n"
        listed = json.loads(text_of(await session.call_tool("list_execution_sessions", {})))
        assert listed.keys() >= {"sessions", "count", "timestamp"}
        info = json.loads(text_of(await session.call_tool("get_system_info", {})))
        assert info["execution_limits"].keys() >= {"max_time", "max_output"}
        assert info["supported_languages"] == ["python", "javascript", "bash"]
        assert info["available_packages"]["numpy"] and info["python_version"]


async def test_a_csv_goes_in_is_read_and_a_result_comes_out_byte_for_byte(
    space: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    csv = "name,grams\r\nå,1\r\n猫,2.5\r\n"
    async with client(space, transport, me) as session:
        await session.call_tool("upload_file", {"path": "in/data.csv", "content": csv})
        ran = await session.call_tool(
            "execute_python_code",
            {
                "code": "df = pd.read_csv('in/data.csv')\ndf['grams'] *= 2\ndf.to_csv('out.csv', index=False)\n"
                "import hashlib; from pathlib import Path\n"
                "print(hashlib.sha256(Path('out.csv').read_bytes()).hexdigest())"
            },
        )
        assert not ran.isError, text_of(ran)
        assert "out.csv" in text_of(ran)
        got = await session.call_tool("download_file", {"path": "out.csv"})
        listed = await session.call_tool("list_files", {})
        deleted = await session.call_tool("delete_file", {"path": "out.csv"})
        gone = await session.call_tool("download_file", {"path": "out.csv"})
    content = got.content[0].text.encode()  # type: ignore[union-attr]
    assert hashlib.sha256(content).hexdigest() == data_of(ran)["stdout"].strip()
    assert data_of(got)["content"].encode() == content and "猫,5.0".encode() in content
    assert {file["path"] for file in data_of(listed)["files"]} == {"in/data.csv", "out.csv"}
    assert data_of(deleted)["deleted"] is True
    assert gone.isError and text_of(gone).startswith("Error:") and "in/data.csv" in text_of(gone)


async def test_a_large_binary_goes_in_and_out_in_parts(space: RunningSpace, transport: str, me: dict[str, str]) -> None:
    data = secrets.token_bytes(300_000)
    part = 120_000
    async with client(space, transport, me) as session:
        for offset in range(0, len(data), part):
            chunk = data[offset : offset + part]
            result = await session.call_tool(
                "upload_file",
                {
                    "path": "big.bin",
                    "content": base64.b64encode(chunk).decode(),
                    "encoding": "base64",
                    "offset": offset,
                    "final": offset + part >= len(data),
                },
            )
            assert not result.isError, text_of(result)
        assert data_of(result) == {**data_of(result), "size": len(data), "complete": True}
        back = b""
        while True:
            asked = {"path": "big.bin", "offset": len(back), "encoding": "base64"}
            got = data_of(await session.call_tool("download_file", asked))
            assert got["encoding"] == "base64" and len(got["content"]) <= 140_000
            back += base64.b64decode(got["content"])
            if got["next_offset"] is None:
                break
            assert got["next_offset"] == len(back)
    assert back == data


async def test_text_comes_in_parts_that_join_to_the_file(space: RunningSpace, me: dict[str, str]) -> None:
    text = "ä€😀x" * 1000
    async with client(space, "sse", me) as session:
        await session.call_tool("upload_file", {"path": "t.txt", "content": text})
        joined, offset = "", 0
        while offset is not None:
            got = data_of(await session.call_tool("download_file", {"path": "t.txt", "offset": offset, "length": 3001}))
            assert got["encoding"] == "text"
            joined, offset = joined + got["content"], got["next_offset"]
    assert joined == text


async def test_an_empty_file_is_a_file(space: RunningSpace, me: dict[str, str]) -> None:
    async with client(space, "http", me) as session:
        put = await session.call_tool("upload_file", {"path": "empty", "content": ""})
        got = await session.call_tool("download_file", {"path": "empty"})
    assert data_of(put)["size"] == 0 and data_of(got)["content"] == "" and not got.isError


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("execute_ruby_code", {"code": "1"}, "no tool"),
    ("execute_python_code", {"code": ""}, "empty"),
    ("execute_python_code", {"code": "   \n"}, "empty"),
    ("execute_python_code", {}, "missing"),
    ("execute_python_code", {"code": "x" * 1_000_001}, "1,000,000"),
    ("execute_python_code", {"code": "a\0b"}, "NUL"),
    ("execute_python_code", {"code": "1", "timeout": 0}, "timeout"),
    ("execute_python_code", {"code": "1", "timeout": -1}, "timeout"),
    ("execute_python_code", {"code": "1", "timeout": 1e9}, "600"),
    ("execute_python_code", {"code": "1", "timeout": "soon"}, "soon"),
    ("execute_python_code", {"code": "1", "session_id": "nobody-knows-this"}, "no session"),
    ("execute_python_code", {"code": "1", "session_id": "x" * 5000}, "no session"),
    ("execute_python_code", {"code": "1", "language": "python"}, "no argument"),
    ("get_execution_history", {"session_id": "../../etc/passwd"}, "no session"),
    ("close_execution_session", {"session_id": "nobody-knows-this"}, "no session"),
    ("upload_file", {"path": "../out", "content": "x"}, "path"),
    ("upload_file", {"path": "/etc/passwd", "content": "x"}, "path"),
    ("upload_file", {"path": "x" * 300, "content": "x"}, "path"),
    ("upload_file", {"path": "", "content": "x"}, "path"),
    ("upload_file", {"path": "a\0b", "content": "x"}, "control character"),
    ("upload_file", {"path": "b.bin", "content": "###", "encoding": "base64"}, "base64"),
    ("upload_file", {"path": "b.bin", "content": "x", "offset": 7}, "offset 0"),
    ("download_file", {"path": "link"}, "link"),
    ("download_file", {"path": "nothing.txt"}, "nothing.txt"),
    ("download_file", {"path": "../../etc/passwd"}, "path"),
    ("delete_file", {"path": "."}, "names no file"),
    ("interrupt_execution", {"execution_id": "unknown"}, "no execution"),
]


async def test_bad_input_gets_a_sentence_and_loses_nothing(
    space: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    async with client(space, transport, me) as session:
        code = "kept = 'still here'\nimport pathlib\npathlib.Path('link').symlink_to('/etc/passwd')"
        linked = await session.call_tool("execute_python_code", {"code": code})
        assert not linked.isError, text_of(linked)
        for name, arguments, words in BAD:
            result = await session.call_tool(name, arguments)
            said = text_of(result)
            assert result.isError and said.startswith("Error: "), (name, str(arguments)[:100], said)
            assert words in said.lower() or words in said, (name, str(arguments)[:100], said)
        after = await session.call_tool("execute_python_code", {"code": "print(kept)"})
    assert data_of(after)["stdout"] == "still here\n"


async def test_half_a_character_is_refused_with_a_sentence(space: RunningSpace, me: dict[str, str]) -> None:
    call = {"name": "execute_python_code", "arguments": {"code": "print('\ud800')"}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call})
    accept = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}
    async with httpx.AsyncClient() as http:
        answer = await http.post(f"{space.url}/gradio_api/mcp", content=body, headers={**accept, **me})
    assert answer.status_code == 200
    message = json.loads(next(line for line in answer.text.splitlines() if line.startswith("data:"))[5:])
    assert message["result"]["isError"] and "surrogate" in message["result"]["content"][0]["text"]


async def test_a_call_over_8_mb_is_refused_at_once_and_the_connection_lives(
    space: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    async with client(space, transport, me) as session:
        began = time.monotonic()
        refused = await session.call_tool("upload_file", {"path": "big", "content": "x" * 9_000_000})
        assert time.monotonic() - began < 20
        assert refused.isError and text_of(refused).startswith("Error:") and "8 MB" in text_of(refused)
        taken = await session.call_tool("upload_file", {"path": "big", "content": "x" * 7_500_000})
        assert data_of(taken)["size"] == 7_500_000


async def test_binary_on_stdout_and_a_flood_are_answered(
    space: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    async with client(space, transport, me) as session:
        binary = await session.call_tool("execute_bash_command", {"command": "head -c 2000 /dev/urandom"})
        assert text_of(binary)
        flood = await session.call_tool("execute_python_code", {"code": "print('x' * 5_000_000)"})
        assert len(text_of(flood)) < 140_000 and data_of(flood)["truncated"]
        after = await session.call_tool("execute_python_code", {"code": "1"})
    assert text_of(after).startswith("1\n")


async def test_strange_values_of_the_code_break_no_connection(
    space: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    code = (
        "v = 1\nfor _ in range(45): v = [v]\nprint('\\udc80 \\ud800')\n"
        "display({'application/json': v, 'text/\\ud800': float('nan')}, raw=True)"
    )
    async with client(space, transport, me) as session:
        await session.call_tool("execute_python_code", {"code": code})
        after = await session.call_tool("execute_python_code", {"code": "6 * 7"})
    assert text_of(after).startswith("42\n")


async def test_the_schema_route_speaks_gradios_form(space: RunningSpace) -> None:
    async with httpx.AsyncClient() as http:
        schema = (await http.get(f"{space.url}/gradio_api/mcp/schema")).json()
        some = (await http.get(f"{space.url}/gradio_api/mcp/schema?tools=get_system_info")).json()
    assert {tool["name"] for tool in schema} >= RECIPE_TOOLS
    assert schema[0].keys() == {"name", "description", "inputSchema", "meta"}
    assert [tool["name"] for tool in some] == ["get_system_info"]


async def test_the_instructions_are_sent(space: RunningSpace, transport: str) -> None:
    async with httpx.AsyncClient() as http:
        stream = await http.get(f"{space.url}/gradio_api/mcp/")
        assert stream.status_code == 405
    async with client(space, transport) as session:
        again = await session.initialize()
    assert again.instructions and "session_id" in again.instructions
