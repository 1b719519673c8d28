"""The page opened with a signed link, on the session of a conversation."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openpyxl
from playwright.sync_api import expect

from tests.e2e.browser.conftest import Opener
from tests.e2e.browser.driving import expect_sessions, open_tab, run, screen
from tests.e2e.running import RunningSpace, client, identity, text_of


async def call(space: RunningSpace, tool: str, arguments: dict[str, Any], headers: dict[str, str]) -> str:
    async with client(space, "sse", headers) as session:
        return text_of(await session.call_tool(tool, arguments))


def link_of(text: str) -> str:
    """Path and query of the page's address in an answer."""
    found = re.search(r"https?://\S+\?session=[\w-]+", text)
    assert found, text
    parts = urlsplit(found[0])
    return f"{parts.path}?{parts.query}"


def test_an_xlsx_dropped_on_the_linked_page_is_read_by_the_conversations_next_call(
    opener: Opener, page_space: RunningSpace, beside: Callable[[Any], Any], tmp_path: Path
) -> None:
    headers = identity("u-link", "c-link")
    python = "execute_python_code"
    beside(call(page_space, python, {"code": "from_chat = 'said in the chat'"}, headers))
    link = link_of(beside(call(page_space, "open_session_page", {}, headers)))
    page = opener(link)
    run(page, "print(from_chat)")
    expect(screen(page)).to_contain_text("said in the chat")
    expect_sessions(page, 1)

    book = openpyxl.Workbook()
    book.active.append(["n"])
    for n in range(5):
        book.active.append([n])
    book.save(tmp_path / "numbers.xlsx")
    open_tab(page, "Files")
    page.locator("#drop input[type=file]").set_input_files(tmp_path / "numbers.xlsx")
    expect(page.locator("#files-status")).to_contain_text("numbers.xlsx is there")
    read = beside(call(page_space, python, {"code": "print(pd.read_excel('numbers.xlsx').n.sum())"}, headers))
    assert read.startswith("10\n")

    stranger = beside(call(page_space, python, {"code": "print('from_chat' in globals())"}, identity("u-2", "c-2")))
    assert stranger.startswith("False\n")


def test_a_link_without_identity_opens_that_one_session_only(
    opener: Opener, page_space: RunningSpace, beside: Callable[[Any], Any]
) -> None:
    ids = []
    for name in ("one", "two"):
        text = beside(call(page_space, "execute_python_code", {"code": f"name = {name!r}"}, {}))
        ids.append(re.search(r"session_id: (\S+)", text)[1])  # type: ignore[index]
    text = beside(call(page_space, "open_session_page", {"session_id": ids[0]}, {}))
    page = opener(link_of(text))
    run(page, "print(name)")
    expect(screen(page)).to_contain_text("one")
    expect_sessions(page, 1)


def test_a_bad_link_gets_a_sentence_and_a_session_of_its_own(opener: Opener) -> None:
    page = opener("/?session=AAAAsomethingelse")
    expect(page.locator("#notice")).to_contain_text("This link is not valid")
    expect(page.locator("#notice")).to_contain_text("a session of its own")
    run(page, "print('works all the same')")
    expect(screen(page)).to_contain_text("works all the same")
