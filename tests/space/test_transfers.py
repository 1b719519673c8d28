"""Files in and out over HTTP, by signed links."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import socket
import time
import zipfile
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import unquote

import pytest
import pytest_asyncio

from space import transfer_routes
from tests.space.served import Served, served

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with served(tmp_path_factory.mktemp("state"), max_upload_mb=8, session_disk_mb=64) as running:
        yield running


# Out


async def test_a_file_comes_out_byte_for_byte_and_is_no_page_of_ours(site: Served) -> None:
    data = os.urandom(1_000_000)
    await site.put('out/猫 "1".html', data)
    answer = await site.http.get(site.links.file(site.grant, 'out/猫 "1".html'))
    assert answer.status_code == 200 and answer.content == data
    assert answer.headers["content-length"] == "1000000"
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    named = answer.headers["content-disposition"]
    assert named.startswith("attachment; filename=\"_ _1_.html\"; filename*=UTF-8''")
    assert unquote(named.rpartition("''")[2]) == '猫 "1".html'


async def test_a_head_tells_of_the_file_without_it(site: Served) -> None:
    await site.put("a.csv", b"a,b\n")
    answer = await site.http.head(site.links.file(site.grant, "a.csv"))
    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "4")
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    ("header", "status", "start", "end"),
    [
        ("bytes=0-0", 206, 0, 1),
        ("bytes=10-19", 206, 10, 20),
        ("bytes=990-", 206, 990, 1000),
        ("bytes=-7", 206, 993, 1000),
        ("bytes=-5000", 206, 0, 1000),
        ("bytes=500-99999", 206, 500, 1000),
        ("bytes=1000-", 416, 0, 0),
        ("bytes=5000-6000", 416, 0, 0),
        ("bytes=-0", 416, 0, 0),
        ("bytes=20-10", 200, 0, 1000),
        ("bytes=0-1,5-9", 200, 0, 1000),
        ("bytes=-", 200, 0, 1000),
        ("bytes=x", 200, 0, 1000),
        ("items=0-5", 200, 0, 1000),
        ("bytes=99999999999999999999-", 200, 0, 1000),
    ],
)
async def test_ranges_give_the_part_that_was_asked_for(
    site: Served, header: str, status: int, start: int, end: int
) -> None:
    data = bytes(range(250)) * 4
    await site.put("ranged.bin", data)
    answer = await site.http.get(site.links.file(site.grant, "ranged.bin"), headers={"Range": header})
    assert answer.status_code == status
    if status == 416:
        assert answer.headers["content-range"] == "bytes */1000" and "range" in answer.json()["error"]
        return
    assert answer.content == data[start:end]
    if status == 206:
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/1000"


async def test_a_download_that_broke_off_goes_on_only_with_the_same_file(site: Served) -> None:
    await site.put("grows.bin", b"first" * 100)
    link = site.links.file(site.grant, "grows.bin")
    etag = (await site.http.head(link)).headers["etag"]
    half = {"Range": "bytes=250-", "If-Range": etag}
    assert (await site.http.get(link, headers=half)).status_code == 206
    await site.put("grows.bin", b"other" * 100)
    changed = await site.http.get(link, headers=half)
    assert (changed.status_code, changed.content) == (200, b"other" * 100)


async def test_an_empty_file_comes_out_empty(site: Served) -> None:
    await site.put("empty", b"")
    answer = await site.http.get(site.links.file(site.grant, "empty"), headers={"Range": "bytes=-5"})
    assert answer.status_code in (200, 416)
    answer = await site.http.get(site.links.file(site.grant, "empty"))
    assert (answer.status_code, answer.content) == (200, b"")


async def test_all_files_come_out_as_a_zip(site: Served) -> None:
    grant = await site.fresh()
    files = {"a.txt": b"a" * 500_000, "tief/猫.bin": os.urandom(700_000), "empty": b""}
    for path, data in files.items():
        await site.write(grant, path, data)
    code = "import os; os.utime('a.txt', (0, 0)); os.mkfifo('pipe'); os.symlink('/etc/passwd', 'link')"
    await site.executor.execute(code, language="python", owner="alice", session_id=grant.session_id)
    answer = await site.http.get(site.links.archive(grant))
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files


async def test_a_zip_names_what_it_could_not_take(site: Served) -> None:
    grant = await site.fresh()
    await site.write(grant, "good", b"1")
    code = "import os; open('big', 'wb').truncate(9 * 2**20); open('twice', 'w').write('x'); os.link('twice', 'again')"
    await site.executor.execute(code, language="python", owner="alice", session_id=grant.session_id)
    answer = await site.http.get(site.links.archive(grant))
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        told = archive.read("not-in-this-zip.txt").decode()
        assert set(archive.namelist()) == {"good", "not-in-this-zip.txt"}
    assert all(f"{name}: " in told for name in ("again", "big", "twice"))


async def test_a_folder_of_sparse_giants_is_no_zip(site: Served) -> None:
    grant = await site.fresh()
    code = "for n in range(20): open(f'{n}', 'wb').truncate(7 * 2**20)"
    await site.executor.execute(code, language="python", owner="alice", session_id=grant.session_id)
    answer = await site.http.get(site.links.archive(grant))
    assert answer.status_code == 413 and "one by one" in answer.json()["error"]


# In


async def test_a_file_goes_in_byte_for_byte_and_the_next_cell_has_it(site: Served) -> None:
    data = os.urandom(3_000_000)

    async def body() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 70_000):
            yield data[start : start + 70_000]

    answer = await site.http.put(site.links.upload(site.grant, "in/data.bin"), content=body())
    assert (answer.status_code, answer.json()) == (201, {"path": "in/data.bin", "size": len(data)})
    result = await site.run("import hashlib; print(hashlib.sha256(open('in/data.bin', 'rb').read()).hexdigest())")
    assert result.stdout.strip() == hashlib.sha256(data).hexdigest()


async def test_a_folder_link_takes_names_as_a_parameter_or_behind_the_token(site: Served) -> None:
    folder = site.links.folder(site.grant)
    assert (await site.http.post(folder, params={"name": "x/ä b.txt"}, content=b"1")).json()["path"] == "x/ä b.txt"
    assert (await site.http.put(f"{folder}/y/%E7%8C%AB.txt", content=b"2")).json()["path"] == "y/猫.txt"
    moved = await site.http.post(folder, params={"from": "x/ä b.txt", "name": "z.txt"})
    assert (moved.status_code, moved.json()) == (200, {"path": "z.txt", "size": 1})
    assert await site.get("z.txt") == b"1" and await site.get("y/猫.txt") == b"2"
    taken = await site.http.post(folder, params={"from": "z.txt", "name": "y/猫.txt"})
    assert taken.status_code == 409 and "exists already" in taken.json()["error"]


async def test_curl_can_do_it(site: Served, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("curl") / "from_curl.csv"
    file.write_bytes(b"a,b\n" * 100_000)
    process = await asyncio.create_subprocess_exec(
        "curl",
        "-sS",
        "-T",
        str(file),
        f"http://127.0.0.1:{site.port}{site.links.folder(site.grant)}/",
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 30)
    assert b'"size":400000' in said
    assert await site.get("from_curl.csv") == file.read_bytes()


async def test_a_client_that_dies_in_the_middle_leaves_no_trace(site: Served) -> None:
    await site.put("kept.bin", b"old")
    path = site.links.upload(site.grant, "kept.bin")
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4000000\r\n\r\n"
    writer.write(head.encode() + b"x" * 1_000_000)
    await writer.drain()
    listing = "import os; print([name for name in os.listdir() if name.startswith('.upload')])"
    async with asyncio.timeout(10):
        while (await site.run(listing)).stdout == "[]\n":
            await asyncio.sleep(0.05)
    writer.transport.abort()
    async with asyncio.timeout(10):
        while (await site.run(listing)).stdout != "[]\n":
            await asyncio.sleep(0.05)
    assert await site.get("kept.bin") == b"old"


async def test_a_reader_that_goes_away_lets_go_of_the_file(site: Served) -> None:
    await site.put("read.bin", os.urandom(8 * 2**20))
    link = site.links.file(site.grant, "read.bin")
    # a session carries 64 transfers at a time: 80 that were not let go of would be too many
    for _ in range(80):
        async with site.http.stream("GET", link) as answer:
            await anext(answer.aiter_raw())
    assert len((await site.http.get(link)).content) == 8 * 2**20


async def rests(site: Served) -> None:
    """Wait until nothing uses the session."""
    session = site.executor._up.keeper.table.get(site.grant.session_id)
    async with asyncio.timeout(10):
        while session.busy:
            await asyncio.sleep(0.05)


async def test_an_upload_that_trickles_in_ends_with_a_sentence_and_keeps_what_was_there(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_routes, "_PATIENCE", 0.5)
    monkeypatch.setattr(transfer_routes, "_SLOWEST", 1000)
    await site.put("trickled.bin", b"old")

    async def body() -> AsyncIterator[bytes]:
        for _ in range(60):
            yield b"x" * 10
            await asyncio.sleep(0.1)

    answer = await site.http.put(site.links.upload(site.grant, "trickled.bin"), content=body())
    said = answer.json()["error"]
    assert answer.status_code == 408 and "at least 1,000 bytes a second. The file was not kept: send it" in said
    assert await site.get("trickled.bin") == b"old"
    await rests(site)


async def test_an_upload_of_the_slowest_rate_allowed_comes_in_and_our_own_slowness_is_not_the_clients(
    site: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer_routes, "_PATIENCE", 0.5)
    monkeypatch.setattr(transfer_routes, "_SLOWEST", 1000)
    put = site.executor._up.backend.put_file

    async def slow_put(ref: Any, path: str, chunks: AsyncIterator[bytes]) -> Any:
        async def slowly() -> AsyncIterator[bytes]:
            async for chunk in chunks:
                await asyncio.sleep(0.4)
                yield chunk

        return await put(ref, path, slowly())

    monkeypatch.setattr(site.executor._up.backend, "put_file", slow_put)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 200
            await asyncio.sleep(0.1)

    answer = await site.http.put(site.links.upload(site.grant, "slow.bin"), content=body())
    assert (answer.status_code, answer.json()) == (201, {"path": "slow.bin", "size": 2000})


@pytest.mark.parametrize("still", [True, False])
async def test_a_reader_that_takes_hardly_any_bytes_is_left_and_holds_the_session_no_longer(
    site: Served, monkeypatch: pytest.MonkeyPatch, still: bool
) -> None:
    monkeypatch.setattr(transfer_routes, "_STALLED" if still else "_PATIENCE", 0.5)
    monkeypatch.setattr(transfer_routes, "_SLOWEST", 2**30)
    await site.put("long.bin", os.urandom(8 * 2**20))
    connection = socket.socket()
    # little of the file fits between the two
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16_384)
    connection.setblocking(False)
    loop = asyncio.get_running_loop()
    with connection:
        await loop.sock_connect(connection, ("127.0.0.1", site.port))
        path = site.links.file(site.grant, "long.bin")
        await loop.sock_sendall(connection, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        got = len(await loop.sock_recv(connection, 1000))
        session = site.executor._up.keeper.table.get(site.grant.session_id)
        assert session.busy
        until = time.monotonic() + 5
        while session.busy and time.monotonic() < until:
            await asyncio.sleep(0.1)
            if not still:
                got += len(await loop.sock_recv(connection, 1000))
        assert not session.busy
        while part := await asyncio.wait_for(loop.sock_recv(connection, 2**20), 10):
            got += len(part)
        assert got < 8 * 2**20, "it broke off, and the client can tell"
