"""What an execution gave, as HTML that holds nothing of the guest's but text."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.results import STATUSES, ErrorInfo, ExecutionResult, FileInfo, Output, Picture, Variable, Violation
from space.page.outputs import (
    changed_variables,
    displays,
    finished_screen,
    frame,
    new_files,
    running_screen,
    status_line,
)

BAIT = "\"'><script>alert(1)</script><img src=x onerror=alert(2)>"
ALLOWED = {"div", "span", "pre", "code", "ul", "li", "small", "a", "img", "iframe", "figure", "figcaption", "button"}
ALLOWED |= {"details", "summary", "table", "tbody", "tr", "td"}


class Tags(HTMLParser):
    """Every tag with its attributes, as a browser would find them."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def result(**fields: Any) -> ExecutionResult:
    base = ExecutionResult(status="ok", session_id="s1", execution_id="e1", language="python", return_code=0)
    return replace(base, **fields)


def link(path: str) -> str:
    return f"/files/{path}"


def harmless(markup: str) -> Tags:
    tags = Tags(markup)
    for tag, attributes in tags.found:
        assert tag in ALLOWED, tag
        assert not [name for name in attributes if name.startswith("on")]
        if tag == "iframe":
            assert attributes["sandbox"] == ""
    return tags


def test_all_that_a_guest_writes_is_text() -> None:
    full = result(
        status="error",
        stdout=BAIT,
        stderr=BAIT,
        error=ErrorInfo(BAIT, BAIT, 1, BAIT, BAIT),
        violations=(Violation(BAIT, BAIT),),
        notices=(BAIT,),
    )
    assert harmless(finished_screen(full)).text.count("<script>alert(1)</script>") >= 4
    picture = Picture(BAIT, BAIT, 1, 1, BAIT + ".png", BAIT)
    real = Picture("image/png", "AAAA", 1, 1, BAIT + ".svg", BAIT)
    outputs = [
        Output(data={mime: BAIT})
        for mime in (
            "text/plain",
            "text/html",
            "image/svg+xml",
            "text/markdown",
            "text/latex",
            "application/json",
            BAIT,
        )
    ]
    outputs += [Output(picture=picture), Output(picture=real)]
    harmless(displays(outputs, link, key="e1"))
    harmless(changed_variables([Variable(BAIT, BAIT, BAIT, "new")]))
    harmless(new_files([FileInfo(BAIT, 1, 0.0, "new")], link))
    harmless(status_line("bad", BAIT))
    harmless(running_screen([("stdout", BAIT), ("stderr", BAIT)]))


@given(st.text(alphabet=st.characters(), max_size=200))
def test_any_text_becomes_harmless_html_that_can_be_sent(text: str) -> None:
    for markup in (
        running_screen([("stdout", text)]),
        displays([Output(data={"text/plain": text}), Output(data={"text/html": text})], link, key="k"),
    ):
        harmless(markup)
        markup.encode()


def test_html_is_in_a_frame_without_rights_and_with_a_policy_of_its_own() -> None:
    tags = harmless(frame("<b>bold</b><script>1</script>"))
    attributes = tags.found[0][1]
    assert "default-src 'none'" in str(attributes["srcdoc"])
    assert str(attributes["srcdoc"]).endswith("<b>bold</b><script>1</script>")
    assert "do not run" in tags.text


@pytest.mark.parametrize("status", [status for status in STATUSES if status not in ("ok", "running")])
def test_every_way_to_end_is_said_in_words(status: Any) -> None:
    line = finished_screen(result(status=status, execution_time=2.5))
    assert "ci-bad" in line
    assert re.search(r"[A-Z][a-z]+.* · 2\.5 s", line)


def test_a_picture_is_shown_small_and_linked_at_full_size() -> None:
    markup = displays([Output(picture=Picture("image/png", "AAAA", 640, 480, "plots/1.png", "Waves"))], link, key="e")
    sources = [attributes["src"] for tag, attributes in Tags(markup).found if tag == "img"]
    assert sources == ["data:image/png;base64,AAAA", "/files/plots/1.png"]
    assert 'alt="Waves"' in markup


def test_what_a_plot_returns_is_not_told_beside_the_plot() -> None:
    lines = Output(data={"text/plain": "[<matplotlib.lines.Line2D at 0x7f>]"}, is_result=True)
    drawn = Output(picture=Picture("image/png", "AAAA", 1, 1, "plots/1.png"))
    assert "Line2D" not in displays([lines, drawn], link, key="e")
    assert "Line2D" in displays([lines], link, key="e")


def test_long_output_keeps_its_end() -> None:
    screen = running_screen([("stdout", "x" * 300_000), ("stderr", "the end")])
    assert len(screen) < 120_000
    assert "the end" in screen


def test_a_hint_about_files_names_the_tab_and_no_tool() -> None:
    hint = "The session's folder has: a.csv. For others, open_session_page gives a person a page to put files in, x."
    shown = finished_screen(result(status="error", error=ErrorInfo("FileNotFoundError", "no", 1, hint=hint)))
    assert "has: a.csv. Others can be dropped in the tab Files." in harmless(shown).text
    assert "open_session_page" not in shown
