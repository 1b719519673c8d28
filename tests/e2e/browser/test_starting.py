"""A page that is opened while the executor still starts, in a real browser."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Browser, expect

from tests.e2e.browser.driving import WAIT, run, screen
from tests.e2e.running import RunningSpace

# the Space, but its backend does not open before a file is there
HELD = """
import asyncio, pathlib, sys
from executor.local import LocalBackend

opens, gate = LocalBackend.open, pathlib.Path(sys.argv[1])

async def held(self, *arguments):
    while not gate.exists():
        await asyncio.sleep(0.05)
    return await opens(self, *arguments)

LocalBackend.open = held
from space.app import main
main()
"""


def test_a_page_that_came_too_early_works_once_the_executor_does(browser: Browser, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    space = RunningSpace.start(tmp_path, command=("-c", HELD, str(gate)), until=503)
    context = browser.new_context()
    try:
        context.set_default_timeout(WAIT)
        page = context.new_page()
        page.goto(space.url)
        expect(page.locator("#notice")).to_contain_text("The interpreter is starting")
        expect(page.locator("#run")).to_be_disabled()
        gate.touch()
        expect(page.locator("#run")).to_be_enabled()
        expect(page.locator("#notice")).to_be_empty()
        run(page, "print('awake')")
        expect(screen(page)).to_contain_text("awake")
    finally:
        context.close()
        space.stop()
