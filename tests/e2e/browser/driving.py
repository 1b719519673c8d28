"""What a person does on the page: open it, type, run, wait, look."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, expect

ADMIN_KEY = "the-operator's-key"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
WAIT = 30_000
"""Milliseconds: generous, the machine may be busy."""

expect.set_options(timeout=WAIT)


def open_page(browser: Browser, url: str, complaints: list[str], *, script: str = "", **options: Any) -> Page:
    """The page in a context of its own, ready to run code; errors of its console go to `complaints`.

    `script` runs before any of the page's own.
    """
    context = browser.new_context(**options)
    context.set_default_timeout(WAIT)
    page = context.new_page()
    page.add_init_script(script)

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: complaints.append(f"uncaught: {error}"))
    page.goto(url)
    expect(page.locator("#run")).to_be_enabled()
    return page


def run(page: Page, code: str, language: str = "Python") -> None:
    """Type code, press Run, and wait for the end."""
    start(page, code, language)
    finished(page)


def start(page: Page, code: str, language: str = "Python") -> None:
    """Type code and press Run."""
    page.get_by_role("radio", name=language, exact=True).check()
    editor(page, language).fill(code)
    # what is there is of the run before
    page.evaluate("document.querySelectorAll('#screen .ci-status').forEach((line) => line.remove())")
    press_run(page, code)
    expect(page.locator("#screen .ci-status").first).to_be_visible()


def editor(page: Page, language: str = "Python") -> Locator:
    """The editor, once it is there for this language."""
    found = page.locator("#code .cm-content")
    # it is made anew for another language: what was selected before is no longer, and would not be replaced
    expect(found).to_have_attribute("data-language", {"bash": "shell"}.get(language, language.lower()))
    return found


def press_run(page: Page, code: str) -> None:
    """Press Run until the page sends `code`: Gradio drops a click before it has heard the end of the run before."""
    sent: list[Request] = []

    def hear(request: Request) -> None:
        asked = request.post_data_json["data"] if "/queue/join" in request.url else ()
        if any(str(value).split() == code.split() for value in asked):
            sent.append(request)

    page.on("request", hear)
    try:
        for _ in range(10):
            # a click itself takes its time, seconds in a tab behind another one: only what comes after it is counted
            page.locator("#run").click()
            for _ in range(30):
                if sent:
                    return
                page.wait_for_timeout(50)
        raise AssertionError("Run was pressed ten times and nothing was sent")
    finally:
        page.remove_listener("request", hear)


def finished(page: Page) -> None:
    """Wait until what runs has ended."""
    expect(page.locator("#screen .ci-status:not(.ci-busy)")).to_be_visible()


def screen(page: Page) -> Locator:
    """What was printed, with the line that says how it ended."""
    return page.locator("#screen")


def shown(page: Page) -> Locator:
    """What was displayed."""
    return page.locator("#shown")


def open_tab(page: Page, name: str) -> None:
    """Go to a tab; on a narrow screen it may be behind the button with the dots."""
    tab = page.get_by_role("tab", name=name, exact=True)
    if not tab.is_visible():
        page.locator("#tabs .overflow-menu > button").click()
        page.locator("#tabs .overflow-dropdown button", has_text=name).click()
        return
    tab.click()


def expect_sessions(page: Page, number: int) -> None:
    """Look into the picker: so many sessions it offers."""
    picker = page.locator("#session input")
    picker.click()
    expect(page.get_by_role("option")).to_have_count(number)
    picker.press("Escape")
