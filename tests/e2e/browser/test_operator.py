"""The operator's tab in a real browser."""

from __future__ import annotations

import time

from playwright.sync_api import Page, expect

from tests.e2e.browser.conftest import Opener
from tests.e2e.browser.driving import ADMIN_KEY, finished, open_tab, run, screen, start


def enter(page: Page, key: str) -> None:
    open_tab(page, "Operator")
    page.locator("#admin-key input").fill(key)
    page.locator("#admin-open").click()


def test_a_session_appears_is_interrupted_and_is_closed(opener: Opener) -> None:
    user, operator = opener(), opener()
    enter(operator, ADMIN_KEY)
    expect(operator.locator("#operator-charts svg")).to_have_count(4)
    start(user, "while True: pass")
    row = operator.locator("#operator-sessions tbody tr", has_text="python,")
    expect(row).to_have_count(1)
    row.get_by_role("button", name="Interrupt").click()
    finished(user)
    expect(screen(user)).to_contain_text("Stopped")
    expect(operator.locator("#operator-status")).to_contain_text("is stopped")
    expect(row).to_have_count(0)

    start(user, "import time; time.sleep(25)")
    expect(row).to_have_count(1)
    closed = row.locator("td").first.inner_text()
    # both clicks in one go: a table drawn anew between them would ask again
    asked = row.get_by_role("button", name="Close").evaluate(
        "b => { b.click(); const text = b.textContent; b.click(); return text; }"
    )
    assert asked == "Really?"
    expect(operator.locator("#operator-status")).to_contain_text("is closed")
    expect(operator.locator("#operator-sessions tbody tr", has_text=closed)).to_have_count(0)
    finished(user)
    run(user, "print('is it there?')")
    expect(screen(user)).to_contain_text("has ended: it was closed")
    run(user, "print('a new one')")
    expect(screen(user)).to_contain_text("a new one")


def test_the_tab_shows_violations_sandbox_and_settings_without_secrets(opener: Opener) -> None:
    operator = opener()
    enter(operator, ADMIN_KEY)
    expect(operator.locator("#operator-charts svg").first).to_be_visible()
    run_in_other = opener()
    run(run_in_other, "import ctypes\nctypes.CDLL(None).system(b'id')\n__import__('os').kill(1, 9)")
    operator.get_by_text("Settings in force").click()
    settings = operator.locator("#operator-settings")
    expect(settings).to_contain_text("ADMIN_KEY")
    expect(settings.locator("tr", has_text="ADMIN_KEY").locator("td").last).to_have_text("set")
    assert ADMIN_KEY not in operator.content()
    operator.get_by_text("Sandbox", exact=True).click()
    expect(operator.locator("#operator-sandbox")).to_contain_text("Level")
    expect(operator.locator("#operator-sandbox tbody tr").first).to_be_visible()


def test_a_wrong_key_is_refused_and_tries_are_slowed_down(opener: Opener) -> None:
    page = opener()
    open_tab(page, "Operator")
    assert page.locator("#operator-sessions").count() == 0 or not page.locator("#operator-sessions").is_visible()
    taken = []
    for number in range(6):
        began = time.monotonic()
        page.locator("#admin-key input").fill(f"wrong {number}")
        with page.expect_response(lambda answer: "/queue/join" in answer.url):
            page.locator("#admin-open").click()
        expect(page.locator("#admin-key input")).to_have_value("")
        expect(page.locator("#operator-status")).to_contain_text("That is not the key.")
        taken.append(time.monotonic() - began)
    assert taken[-1] > 1.5, taken  # 0.25 s twice its number for each beyond the third
    assert not page.locator("#operator-sessions").is_visible()
    assert "Newest violations" not in page.locator("body").inner_text()
