"""Whose sessions a page reaches."""

from __future__ import annotations

import pytest

from executor import Executor, NoSuchSession, Settings
from space.links import Grant, Links
from space.page.execution import session_of
from space.page.visitor import visitor_of

KEY = "0123456789abcdef" * 2


@pytest.fixture
def links() -> Links:
    return Links(Settings())


def token_of(links: Links, grant: Grant) -> str:
    return links.page(grant).partition("=")[2]


def test_the_same_key_is_the_same_visitor_and_another_is_another(links: Links) -> None:
    first, again, other = (visitor_of(links, "", key)[0] for key in (KEY, KEY, KEY[::-1]))
    assert first is not None and first == again and first != other
    assert KEY not in first.owner


@pytest.mark.parametrize("key", ["", "abc", "x" * 32, KEY.upper(), KEY + "\n", "0" * 31, "0" * 129])
def test_what_is_no_random_name_opens_nothing(links: Links, key: str) -> None:
    visitor, sentence = visitor_of(links, "", key)
    assert visitor is None
    assert "Reload" in sentence


def test_a_link_speaks_for_its_conversation(links: Links) -> None:
    visitor, sentence = visitor_of(links, token_of(links, Grant("u", "c", "s1")), KEY)
    assert visitor is not None and sentence == ""
    assert (visitor.owner, visitor.conversation, visitor.granted) == ("u", "c", "s1")


def test_a_changed_link_is_told_and_the_page_is_its_own(links: Links) -> None:
    token = token_of(links, Grant("u", "c", "s1"))
    for bad in (token[:-1] + ("A" if token[-1] != "A" else "B"), token[1:], "x", token + token):
        visitor, sentence = visitor_of(links, bad, KEY)
        assert visitor is not None and visitor.owner.startswith("page:")
        assert "a session of its own" in sentence
    # a link to a file is none to the page
    file_token = links.file(Grant("u", "c", "s1"), "a.txt").rpartition("/")[2]
    visitor, sentence = visitor_of(links, file_token, KEY)
    assert visitor is not None and visitor.owner.startswith("page:")


async def test_without_identity_a_link_reaches_its_session_and_those_made_on_the_page(links: Links, tmp_path) -> None:
    async with Executor(Settings(work_dir=str(tmp_path), allow_weak_sandbox=True)) as executor:
        mine = await executor.create_session(owner="anonymous")
        foreign = await executor.create_session(owner="anonymous")
        visitor, _ = visitor_of(links, token_of(links, Grant("anonymous", None, mine.id)), KEY)
        assert visitor is not None
        assert [session.id for session in visitor.sessions(executor)] == [mine.id]
        assert await session_of(executor, visitor, "") == mine.id
        with pytest.raises(NoSuchSession):
            await session_of(executor, visitor, foreign.id)
        more = await executor.create_session(owner="anonymous")
        visitor = visitor.with_session(more.id)
        assert [session.id for session in visitor.sessions(executor)] == [mine.id, more.id]
        await executor.close_session(mine.id, owner="anonymous")
        assert [session.id for session in visitor.sessions(executor)] == [more.id]
        with pytest.raises(NoSuchSession):
            await session_of(executor, visitor, "")
