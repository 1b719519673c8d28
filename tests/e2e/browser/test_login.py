"""The login form of a Space with an access key, in a real browser: it alone says which Origin a form has."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.browser.driving import WAIT, run, screen
from tests.e2e.running import RunningSpace

KEY = "the key of this Space"


@pytest.fixture(scope="module")
def locked_space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """A Space that asks for a key."""
    running = RunningSpace.start(tmp_path_factory.mktemp("locked"), ACCESS_KEY=KEY)
    yield running
    running.stop()


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Page]:
    """A page in a context without cookies."""
    context = browser.new_context()
    context.set_default_timeout(WAIT)
    yield context.new_page()
    context.close()


def enter(page: Page, key: str) -> None:
    page.get_by_label("Access key").fill(key)
    page.get_by_role("button", name="Open").click()


def test_the_form_lets_in_who_has_the_key(locked_space: RunningSpace, visitor: Page) -> None:
    answer = visitor.goto(locked_space.url)
    assert answer is not None and answer.status == 401
    enter(visitor, "a guess")
    expect(visitor.get_by_role("alert")).to_have_text("That is not the key.")
    # from the page of the first refusal, which must be as good a form as the first one
    enter(visitor, KEY)
    expect(visitor.locator("#run")).to_be_enabled()
    assert visitor.url == f"{locked_space.url}/"
    run(visitor, "print('inside')")
    expect(screen(visitor)).to_contain_text("inside")


def test_the_form_of_another_site_is_refused(locked_space: RunningSpace, visitor: Page) -> None:
    visitor.set_content(
        f'<form method="post" action="{locked_space.url}/login"><label>Access key<input name="key"></label>'
        "<button>Open</button></form>"
    )
    with visitor.expect_navigation() as navigation:
        enter(visitor, KEY)
    assert navigation.value.status == 403
