"""Files in and out over HTTP with bad input: a sentence each, and nothing is lost."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from executor.errors import NoSuchFile
from space.links import Grant, Links
from space.transfer_routes import byte_range, disposition, media_type
from tests.space.served import Served, served

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with served(tmp_path_factory.mktemp("state"), max_upload_mb=8, session_disk_mb=64) as running:
        yield running


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
    grant = await site.fresh()
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
    grant = await site.fresh()
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
    grant = await site.fresh()
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
