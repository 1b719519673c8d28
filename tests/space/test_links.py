"""Signed links: what a token gives the right to, and what it does not."""

from __future__ import annotations

import base64
import time

import pytest

from executor.settings import Settings
from space.links import MAX_TOKEN_CHARS, Grant, LinkRefused, Links

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


def test_an_expired_link_says_so() -> None:
    links = Links(Settings(link_ttl=1))
    made = token(links.file(GRANT, "a"))
    links.open(made, "file")
    time.sleep(1.1)
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
    before, after = Links(Settings(link_key="k")), Links(Settings(link_key="k"))
    made = token(before.file(GRANT, "a"))
    with pytest.raises(LinkRefused, match="session of this link has ended"):
        after.open(made, "file")
    after.page(GRANT)
    assert after.open(made, "file").path == "a"


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
