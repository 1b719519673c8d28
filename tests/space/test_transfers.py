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

from executor.errors import NoSuchFile
from space import transfer_routes
from space.links import Grant, Links
from space.transfer_routes import byte_range, disposition, media_type
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
    grant = await fresh(site)
    files = {"a.txt": b"a" * 500_000, "tief/猫.bin": os.urandom(700_000), "empty": b""}
    for path, data in files.items():
        await write(site, grant, path, data)
    code = "import os; os.utime('a.txt', (0, 0)); os.mkfifo('pipe'); os.symlink('/etc/passwd', 'link')"
    await site.executor.execute(code, language="python", owner="alice", session_id=grant.session_id)
    answer = await site.http.get(site.links.archive(grant))
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert {name: archive.read(name) for name in archive.namelist()} == files


async def test_a_zip_names_what_it_could_not_take(site: Served) -> None:
    grant = await fresh(site)
    await write(site, grant, "good", b"1")
    code = "import os; open('big', 'wb').truncate(9 * 2**20); open('twice', 'w').write('x'); os.link('twice', 'again')"
    await site.executor.execute(code, language="python", owner="alice", session_id=grant.session_id)
    answer = await site.http.get(site.links.archive(grant))
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        told = archive.read("not-in-this-zip.txt").decode()
        assert set(archive.namelist()) == {"good", "not-in-this-zip.txt"}
    assert all(f"{name}: " in told for name in ("again", "big", "twice"))


async def test_a_folder_of_sparse_giants_is_no_zip(site: Served) -> None:
    grant = await fresh(site)
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


# Bad input


@pytest.mark.parametrize("announced", [True, False])
async def test_a_file_over_the_limit_is_refused_and_not_kept(site: Served, announced: bool) -> None:
    data = b"x" * (8 * 2**20 + 1)

    async def body() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 2**20):
            yield data[start : start + 2**20]

    answer = await site.http.put(site.links.upload(site.grant, "big"), content=data if announced else body())
    assert answer.status_code == 413 and "8,388,608" in answer.json()["error"]
    with pytest.raises(NoSuchFile):
        await site.get("big")


async def test_a_full_folder_is_said_to_be_full(site: Served) -> None:
    grant = await fresh(site)
    answers = []
    for number in range(10):
        answers.append(await site.http.put(site.links.upload(grant, f"{number}"), content=b"x" * 8_000_000))
        if answers[-1].status_code != 201:
            break
    assert answers[-1].status_code == 409 and "full" in answers[-1].json()["error"] and len(answers) > 7
    kept = await site.executor.list_files(grant.session_id, owner="alice")
    assert len(kept) == len(answers) - 1


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("../out.txt", 400),
        ("a/../../out.txt", 400),
        ("/etc/passwd", 400),
        ("//etc/passwd", 400),
        ("~/x", 400),
        ("two\nlines", 400),
        ("nul\0byte", 400),
        ("x" * 300, 400),
        ("d/" * 60 + "x", 400),
        (".tmp/x", 400),
        ("", 400),
        (".", 400),
        ("\\..\\..\\x", 201),
        ("%2e%2e%2fx", 201),
        ("..%2Fx", 201),
        ("\uff0e\uff0e\uff0fx", 201),
        ("\u202egpj.exe", 201),
        ("e\u0301.txt", 201),
        ("a" * 250 + ".txt", 201),
    ],
)
async def test_every_name_works_or_is_refused_with_a_sentence(site: Served, name: str, status: int) -> None:
    grant = await fresh(site)
    answer = await site.http.put(site.links.folder(grant), params={"name": name}, content=b"1")
    assert answer.status_code == status, answer.text
    if status == 201:
        assert answer.json()["path"] == name
        assert (await site.http.get(site.links.file(grant, name))).content == b"1"
    else:
        assert answer.json()["error"].startswith("Error: ")
        assert await site.executor.list_files(grant.session_id, owner="alice") == []


@pytest.mark.parametrize(
    "raw",
    ["../x", "%2e%2e/x", "..%2fx", "%2e%2e%2fx", "a/%2E%2E/%2e%2e/x", "%2fetc/passwd", "a%0ab", "a%00b", "%7e/x"],
)
async def test_no_encoding_of_a_path_leaves_the_folder(site: Served, raw: str) -> None:
    grant = await fresh(site)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    # by hand: clients tidy such addresses up before they send them
    target = f"{site.links.folder(grant)}/{raw}"
    writer.write(f"PUT {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nConnection: close\r\n\r\n1".encode())
    answer = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 400") and b'"error":"Error: ' in answer
    assert await site.executor.list_files(grant.session_id, owner="alice") == []


async def test_a_link_opens_its_own_file_alone(site: Served) -> None:
    await site.put("mine", b"1")
    one = site.links.upload(site.grant, "one")
    assert (await site.http.put(f"{one}?name=two", content=b"x")).status_code == 403
    assert (await site.http.put(f"{one}/two", content=b"x")).status_code == 403
    assert (await site.http.post(f"{one}?from=mine&name=one")).status_code == 403
    reading, writing = site.links.file(site.grant, "mine"), site.links.upload(site.grant, "mine")
    crossed = await site.http.put(reading.replace("/files/", "/upload/"), content=b"x")
    assert crossed.status_code == 403 and "reading one file" in crossed.json()["error"]
    crossed = await site.http.get(writing.replace("/upload/", "/files/"))
    assert crossed.status_code == 403 and "writing one file" in crossed.json()["error"]
    page = site.links.page(site.grant).removeprefix("/?session=")
    assert (await site.http.get(f"/files/{page}")).status_code == 403
    assert await site.get("mine") == b"1"


async def test_a_changed_a_foreign_and_an_old_token_are_refused_with_a_sentence(site: Served) -> None:
    await site.put("secret", b"1")
    good = site.links.file(site.grant, "secret")
    flipped = good[:-8] + ("A" if good[-8] != "A" else "B") + good[-7:]
    for bad in (flipped, "/files/x", Links(site.executor.settings).file(site.grant, "secret")):
        answer = await site.http.get(bad)
        assert answer.status_code == 403 and "not valid" in answer.json()["error"]
        assert (await site.http.put(bad.replace("files", "upload"), content=b"x")).status_code == 403
    gone = await site.executor.create_session(owner="alice")
    link = site.links.file(Grant("alice", None, gone.id), "secret")
    await site.executor.close_session(gone.id, owner="alice")
    answer = await site.http.get(link)
    assert answer.status_code == 410 and "has ended" in answer.json()["error"]
    assert (await site.http.get(site.links.file(Grant("mallory", None, site.grant.session_id), "secret"))).is_error


@pytest.mark.parametrize("what", ["nothing", "folder", "link", "pipe"])
async def test_what_is_no_file_gets_a_sentence(site: Served, what: str) -> None:
    await site.run(
        "import os, pathlib\npathlib.Path('folder').mkdir(exist_ok=True)\n"
        "if not os.path.lexists('link'): os.symlink('/etc/passwd', 'link'); os.mkfifo('pipe')"
    )
    answer = await site.http.get(site.links.file(site.grant, what))
    assert answer.status_code == (404 if what == "nothing" else 409)
    assert answer.json()["error"].startswith("Error: ")


async def test_a_form_is_told_how_else(site: Served) -> None:
    answer = await site.http.post(site.links.folder(site.grant) + "?name=x", files={"file": b"1"})
    assert answer.status_code == 415 and "curl" in answer.json()["error"]


async def test_a_file_that_shrinks_while_it_is_sent_breaks_off_and_does_not_end(site: Served) -> None:
    await site.put("shrinks", os.urandom(8 * 2**20))
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port, limit=2**16)
    writer.write(f"GET {site.links.file(site.grant, 'shrinks')} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    received = len(await reader.read(1000))
    await asyncio.sleep(0.3)
    await site.run("open('shrinks', 'wb').truncate(0)")
    began = time.monotonic()
    while data := await asyncio.wait_for(reader.read(2**20), 20):
        received += len(data)
    writer.close()
    assert received < 8 * 2**20 and time.monotonic() - began < 20


async def test_types_under_which_a_browser_would_run_something_are_not_sent() -> None:
    for name in ("a.html", "a.xhtml", "a.xml", "a.js", "a.mjs", "a.css", "a", "a.swf", "a.htm", "a.mhtml", "a.wasm"):
        assert media_type(name) == "application/octet-stream", name
    for name, kind in (
        ("a.png", "image/png"),
        ("a.svg", "image/svg+xml"),
        ("a.csv", "text/csv"),
        ("a.pdf", "application/pdf"),
    ):
        assert media_type(name) == kind


async def test_a_name_cannot_break_out_of_its_header() -> None:
    made = disposition('x"; evil="1\r\nSet-Cookie: a=b\\.csv')
    assert "\r" not in made and "\n" not in made and made.count('"') == 2
    assert byte_range("", 5) is None


async def fresh(site: Served) -> Grant:
    """A session without files."""
    for old in site.executor.list_sessions(owner="alice"):
        if old.id != site.grant.session_id:
            await site.executor.close_session(old.id, owner="alice")
    return Grant("alice", None, (await site.executor.create_session(owner="alice")).id)


async def write(site: Served, grant: Grant, path: str, data: bytes) -> None:
    answer = await site.http.put(site.links.upload(grant, path), content=data)
    assert answer.status_code == 201, answer.text
