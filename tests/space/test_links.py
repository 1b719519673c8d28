"""Signed links: what a token gives the right to, and what it does not."""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette

from executor import Executor
from executor.settings import Settings
from space.identity import Caller
from space.links import MAX_TOKEN_CHARS, Grant, LinkRefused, Links
from space.toolbox import Toolbox
from space.tools import tool_table
from space.transfer_routes import transfer_routes

GRANT = Grant("alice@example.org", "talk-1", "s" * 22)


def token(path: str) -> str:
    return path.rsplit("/", 1)[-1].removeprefix("?session=")


@pytest.fixture
def links() -> Links:
    return Links(Settings())


def test_a_link_gives_back_what_it_was_made_for(links: Links) -> None:
    link = links.open(token(links.file(GRANT, "in/猫 1.csv")), "file")
    assert (link.kind, link.grant, link.path) == ("file", GRANT, "in/猫 1.csv")
    assert time.time() < link.expires <= time.time() + 86_400
    assert links.open_session(token(links.page(GRANT))) == GRANT
    nobody = Grant("anonymous", None, "t" * 22)
    assert links.open_session(token(links.page(nobody))) == nobody


def test_a_token_tells_nothing_about_owner_and_session(links: Links) -> None:
    raw = base64.urlsafe_b64decode(token(links.file(GRANT, "a.csv")) + "==")
    for part in (GRANT.owner, GRANT.session_id, "talk-1"):
        assert part.encode() not in raw


def test_a_token_is_short_enough_to_be_copied_by_a_model(links: Links) -> None:
    assert len(token(links.file(GRANT, "plots/1.png"))) < 70


def test_a_token_changed_in_any_bit_is_refused(links: Links) -> None:
    good = token(links.file(GRANT, "a.csv"))
    raw = base64.urlsafe_b64decode(good + "=" * (-len(good) % 4))
    for bit in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(LinkRefused, match="not valid"):
            links.open(
                base64.urlsafe_b64encode(changed).decode().rstrip("="), "file", "zip", "upload", "folder", "page"
            )


def test_a_token_is_good_in_one_spelling_only(links: Links) -> None:
    for path in ("a", "ab", "abc"):
        good = token(links.file(GRANT, path))
        for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
            if good[-1] != other:
                with pytest.raises(LinkRefused):
                    links.open(good[:-1] + other, "file")
        for spelling in (good + "=", good + "==", f" {good}", f"{good}\n", good[:-1]):
            with pytest.raises(LinkRefused):
                links.open(spelling, "file")


@pytest.mark.parametrize(
    "text", ["", "x", "....", "é", "\ud800", "A" * 22, "A" * MAX_TOKEN_CHARS * 2, "../../etc/passwd"]
)
def test_what_is_no_token_gets_a_sentence(links: Links, text: str) -> None:
    with pytest.raises(LinkRefused, match="new one"):
        links.open(text, "file")


def test_an_expired_link_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    links, later = Links(Settings(link_ttl=60)), 0.0
    monkeypatch.setattr("space.links.time", SimpleNamespace(time=lambda: time.time() + later))
    made = token(links.file(GRANT, "a"))
    links.open(made, "file")
    later = 61.0
    with pytest.raises(LinkRefused, match="expired") as caught:
        links.open(made, "file")
    assert caught.value.gone


def test_a_link_for_one_thing_is_no_link_for_another(links: Links) -> None:
    with pytest.raises(LinkRefused, match="for reading one file"):
        links.open_session(token(links.file(GRANT, "a")))
    with pytest.raises(LinkRefused, match="for opening the page"):
        links.open(token(links.page(GRANT)), "file", "zip")
    with pytest.raises(LinkRefused, match="for reading all files"):
        links.open(token(links.archive(GRANT)), "upload", "folder")


def test_a_link_of_another_server_is_refused_unless_they_share_the_key() -> None:
    ours, theirs = Links(Settings()), Links(Settings())
    with pytest.raises(LinkRefused, match="not valid"):
        ours.open(token(theirs.file(GRANT, "a")), "file")
    shared = Settings(link_key="k")
    made = token(Links(shared).file(GRANT, "a"))
    with pytest.raises(LinkRefused, match="under another LINK_KEY"):
        Links(Settings(link_key="other")).open(made, "file")
    # with the key alone it is genuine; whether it is good depends on whether the session is there
    assert Links(shared, lambda: [Grant("bob", None, "t"), GRANT]).open(made, "file").grant == GRANT
    with pytest.raises(LinkRefused, match="session of this link has ended") as ended:
        Links(shared, lambda: [Grant("bob", None, "t")]).open(made, "file")
    assert ended.value.gone
    with pytest.raises(LinkRefused, match="still starting") as starting:
        Links(shared, lambda: None).open(made, "file")
    assert starting.value.early and not starting.value.gone


def test_a_session_that_is_there_is_found_however_many_links_were_made_since(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("space.links._REMEMBERED", 2)
    links = Links(Settings(), lambda: [GRANT])
    made = token(links.file(GRANT, "a"))
    for number in range(3):
        links.page(Grant("bob", None, f"{number}"))
    assert links.open(made, "file").grant == GRANT


@asynccontextmanager
async def server(folder: Path, **overrides: Any) -> AsyncIterator[tuple[Toolbox, httpx.AsyncClient]]:
    """Tools and links of a server that finds in `folder` what former ones have kept; not ready yet."""
    values: dict[str, Any] = {
        "work_dir": str(folder / "work"),
        "state_dir": str(folder / "kept"),
        "security_policy": "off",
        "allow_weak_sandbox": True,
    }
    settings = Settings(**(values | overrides))
    async with Executor(settings) as executor:
        box = Toolbox(executor, settings, executor.bus, tool_table(settings))
        app = Starlette(routes=transfer_routes(executor, box.links, settings, executor.bus))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
            yield box, http


@pytest.mark.parametrize("key", ["k", ""])
async def test_a_link_outlives_the_server_with_its_session_where_there_is_a_key(tmp_path: Path, key: str) -> None:
    alice = Caller("alice", "talk", True)
    async with server(tmp_path, link_key=key) as (box, http):
        box.ready.set()
        wrote = await box.call("upload_file", {"path": "a.txt", "content": "kept"}, alice, "http")
        closed = await box.executor.create_session(owner="alice", conversation="talk")
        assert wrote.session_id is not None
        link = box.links.file(box.grant(alice, wrote.session_id), "a.txt")
        dead = box.links.archive(box.grant(alice, closed.id))
        await box.executor.close_session(closed.id, owner="alice", conversation="talk")
        assert (await http.get(link)).text == "kept"
    async with server(tmp_path, link_key=key) as (box, http):
        early = await http.get(link)
        box.ready.set()
        live, gone = await http.get(link), await http.get(dead)
        if key:
            assert (early.status_code, early.headers["retry-after"]) == (503, "5") and "starting" in early.text
            assert (live.status_code, live.text) == (200, "kept")
            assert gone.status_code == 410 and "session of this link has ended" in gone.json()["error"]
        else:
            for answer in (early, live, gone):
                assert answer.status_code == 403 and "before the server was restarted" in answer.json()["error"]


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        (
            Settings(public_base_url="https://x.example/code/", space_host="o-s.hf.space"),
            "https://x.example/code/files/",
        ),
        (Settings(space_host="o-s.hf.space", space_id="o/s"), "https://o-s.hf.space/files/"),
        (Settings(port=7999), "http://127.0.0.1:7999/files/"),
        (Settings(host="0.0.0.0"), None),
        (Settings(port=0), None),
    ],
)
def test_links_begin_with_the_address_that_people_use(settings: Settings, address: str | None) -> None:
    links = Links(settings)
    made = links.absolute(links.file(GRANT, "a"))
    assert made is None if address is None else (made or "").startswith(address)


def test_only_where_hugging_face_stands_before_us_a_link_is_said_to_ask_for_a_login() -> None:
    assert "login" in Links(Settings(space_host="o-s.hf.space")).note
    assert not Links(Settings(space_host="o-s.hf.space", public_base_url="https://x.example")).note
    assert not Links(Settings()).note


def test_a_link_to_the_page_asks_for_a_login_also_where_files_come_through_a_proxy() -> None:
    assert "login" in Links(Settings(space_host="o-s.hf.space", public_base_url="https://x.example")).page_note
    assert not Links(Settings(public_base_url="https://x.example")).page_note
