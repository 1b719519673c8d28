"""Real Chromium on a running Space, and a page that fails its test when the console shows an error."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.browser.driving import ADMIN_KEY, FLAGS, open_page
from tests.e2e.running import RunningSpace

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="package")
def page_space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """One Space for all tests with a browser, its operator's tab on."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: install Debian's package chromium")
    running = RunningSpace.start(tmp_path_factory.mktemp("page"), ADMIN_KEY=ADMIN_KEY)
    yield running
    running.stop()


# for a module and no longer: Playwright holds the thread's event loop, which other modules' tests need
@pytest.fixture(scope="module")
def browser(page_space: RunningSpace) -> Iterator[Browser]:
    """The browser."""
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield running
        running.close()


Opener = Callable[..., Page]


@pytest.fixture
def opener(browser: Browser, page_space: RunningSpace) -> Iterator[Opener]:
    """Opens pages, each in a context of its own: `opener(path="/", errors_expected=False, script="", **options)`."""
    opened: list[Page] = []
    complaints: list[str] = []

    def open_one(path: str = "/", *, errors_expected: bool = False, **options: Any) -> Page:
        said: list[str] = [] if errors_expected else complaints
        page = open_page(browser, page_space.url + path, said, **options)
        opened.append(page)
        return page

    yield open_one
    for page in opened:
        page.context.close()
    assert complaints == []


@pytest.fixture
def page(opener: Opener) -> Page:
    """The page, opened without a link."""
    return opener()


@pytest.fixture
def beside() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    """Runs a coroutine to its end on another thread: this one's event loop is Playwright's."""
    with ThreadPoolExecutor(1) as thread:
        yield lambda coroutine: thread.submit(asyncio.run, coroutine).result(60)
