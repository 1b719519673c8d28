"""Files by link, from the answer of a tool to the bytes on a person's disk."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
import secrets
import zipfile
from collections.abc import AsyncIterator, Iterator

import httpx
import psutil
import pytest

from tests.e2e.running import RunningSpace, client, data_of, identity, text_of

MEGABYTES = int(os.environ.get("TRANSFER_MB", "64"))


@pytest.fixture
def me() -> dict[str, str]:
    """A user in a conversation that no other test knows."""
    return identity(f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}")


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """A Space with an access key and a name of its own."""
    running = RunningSpace.start(
        tmp_path_factory.mktemp("space"), ACCESS_KEY="the key", PUBLIC_BASE_URL="https://code.example/space"
    )
    yield running
    running.stop()


async def test_what_a_cell_made_comes_with_a_link_that_works(
    space: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    code = "open('out.csv', 'w').write('a,b\\n' * 1000)\nplt.plot([1, 2])"
    async with client(space, transport, me) as session:
        result = await session.call_tool("execute_python_code", {"code": code})
    (line,) = re.findall(r"^out\.csv: (\S+)$", text_of(result), re.MULTILINE)
    (file,) = [file for file in data_of(result)["files"] if file["path"] == "out.csv"]
    assert line == file["url"] and line.startswith(f"{space.url}/files/")
    assert text_of(result).splitlines()[-1].startswith("session_id: ")
    async with httpx.AsyncClient() as http:
        answer = await http.get(line, headers={"Accept-Encoding": "br, gzip"})
        part = await http.get(line, headers={"Range": "bytes=4-7", "Accept-Encoding": "br, gzip"})
    assert answer.text == "a,b\n" * 1000 and 'filename="out.csv"' in answer.headers["content-disposition"]
    assert (part.status_code, part.text, part.headers["content-range"]) == (206, "a,b\n", "bytes 4-7/4000")


async def test_a_large_or_binary_file_is_answered_with_its_link_unless_bytes_are_asked_for(
    space: RunningSpace, me: dict[str, str]
) -> None:
    code = "open('big.txt', 'w').write('x' * 200_000); n = open('b.bin', 'wb').write(bytes(range(256)))"
    async with client(space, "http", me) as session:
        await session.call_tool("execute_python_code", {"code": code})
        large = await session.call_tool("download_file", {"path": "big.txt"})
        binary = await session.call_tool("download_file", {"path": "b.bin"})
        part = await session.call_tool("download_file", {"path": "big.txt", "length": 10})
        whole = await session.call_tool("download_file", {"path": "b.bin", "encoding": "base64"})
        listed = await session.call_tool("list_files", {})
    assert "200,000 bytes, too large" in text_of(large) and len(text_of(large)) < 500
    assert "no text" in text_of(binary) and data_of(binary)["content"] == ""
    assert data_of(part)["content"] == "x" * 10
    assert base64.b64decode(data_of(whole)["content"]) == bytes(range(256))
    async with httpx.AsyncClient() as http:
        assert (await http.get(data_of(large)["url"])).text == "x" * 200_000
        assert (await http.get(data_of(binary)["url"])).content == bytes(range(256))
        packed = await http.get(data_of(listed)["zip_url"])
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        assert archive.read("b.bin") == bytes(range(256))


async def test_the_pages_link_opens_and_what_is_sent_to_its_address_is_there_for_the_next_call(
    space: RunningSpace, transport: str, me: dict[str, str]
) -> None:
    async with client(space, transport, me) as session:
        opened = data_of(await session.call_tool("open_session_page", {}))
        async with httpx.AsyncClient() as http:
            assert (await http.get(opened["url"])).status_code == 200
            sent = await http.put(f"{opened['upload_url']}/in.csv", content=b"a\n1\n2\n")
            assert sent.status_code == 201
        result = await session.call_tool("execute_python_code", {"code": "print(pd.read_csv('in.csv').a.sum())"})
    assert data_of(result)["stdout"] == "3\n" and data_of(result)["session_id"] == opened["session_id"]


async def test_without_identity_the_page_brings_a_session_of_its_own(space: RunningSpace) -> None:
    async with client(space, "http") as session:
        opened = data_of(await session.call_tool("open_session_page", {}))
        named = {"session_id": opened["session_id"]}
        assert data_of(await session.call_tool("open_session_page", named))["session_id"] == opened["session_id"]
        wrong = await session.call_tool("open_session_page", {"session_id": "nobody-knows-this"})
    assert wrong.isError and "no session" in text_of(wrong)


async def test_a_missing_file_leads_to_the_page(space: RunningSpace, me: dict[str, str]) -> None:
    async with client(space, "http", me) as session:
        result = await session.call_tool("download_file", {"path": "mine.xlsx"})
    assert result.isError and "open_session_page" in text_of(result)


async def test_links_need_no_access_key_and_the_pages_link_opens_no_door_but_the_pages(
    locked: RunningSpace, me: dict[str, str]
) -> None:
    async with client(locked, "http", {**me, "X-Access-Key": "the key"}) as session:
        opened = data_of(await session.call_tool("open_session_page", {}))
    assert opened["url"].startswith("https://code.example/space/?session=")
    page, upload = (opened[name].removeprefix("https://code.example/space") for name in ("url", "upload_url"))
    async with httpx.AsyncClient(base_url=locked.url) as http:
        assert (await http.put(f"{upload}/x", content=b"1")).status_code == 201
        assert (await http.get("/", headers={"Accept": "text/html"})).status_code == 401
        assert (await http.get(page[:-9] + "AAAAAAAAA", headers={"Accept": "text/html"})).status_code == 401
        entered = await http.get(page, headers={"Accept": "text/html"})
        assert entered.status_code == 200 and "HttpOnly" in entered.headers["set-cookie"]
        assert (await http.get("/config")).status_code == 200
        for closed in ("/gradio_api/mcp/sse", "/gradio_api/mcp/schema", "/gradio_api//mcp/schema", "/metrics", "/"):
            answer = await http.get(closed)
            assert answer.status_code in ((401,) if closed != "/" else (200,)), closed
        calling = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        assert (await http.post("/gradio_api/mcp/", json=calling)).status_code == 401


async def test_a_file_goes_up_and_down_with_the_server_using_no_more_memory(
    space: RunningSpace, me: dict[str, str]
) -> None:
    """64 MB here; TRANSFER_MB=200 was measured, too."""
    size, part = MEGABYTES * 2**20, 2**20
    process = psutil.Process(space.process.pid)
    block = secrets.token_bytes(part)
    sent, received = hashlib.sha256(), hashlib.sha256()
    highest = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal highest
        for number in range(size // part):
            chunk = number.to_bytes(8, "big") + block[8:]
            sent.update(chunk)
            yield chunk
            highest = max(highest, process.memory_info().rss)

    async with client(space, "http", me) as session:
        opened = data_of(await session.call_tool("open_session_page", {}))
        before = process.memory_info().rss
        async with httpx.AsyncClient(timeout=120) as http:
            answer = await http.put(f"{opened['upload_url']}/large.bin", content=body())
            assert answer.json() == {"path": "large.bin", "size": size}
            found = data_of(await session.call_tool("download_file", {"path": "large.bin"}))
            async with http.stream("GET", found["url"]) as down:
                async for chunk in down.aiter_raw(part):
                    received.update(chunk)
                    highest = max(highest, process.memory_info().rss)
    assert received.digest() == sent.digest()
    print(f"server memory: {(highest - before) / 2**20:.1f} MiB more for {MEGABYTES} MiB up and down")
    assert highest - before < 50 * 2**20
