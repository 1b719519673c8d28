"""Reader: lines of the log, filtered and readable, whatever else is among them."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from monitoring.reader import parse, read, render, wanted
from tests.monitoring.conftest import Watched
from tests.monitoring.script import closed, execution, opened, violated


def printed(watched: Watched) -> list[str]:
    watched.say(
        opened(), opened(session_id="other"), *execution(1), *execution(2, session_id="other", status="timeout")
    )
    watched.say(violated(), closed())
    return watched.out.getvalue().splitlines()


def test_the_filter_for_errors_keeps_what_needs_a_look(watched: Watched) -> None:
    kept = [parse(line) for line in read(printed(watched), errors=True, raw=True)]
    assert [(record["event"], record.get("status")) for record in kept] == [
        ("execution", "timeout"),
        ("violation", None),
    ]


def test_the_filter_for_a_session_takes_the_beginning_of_its_pseudonym(watched: Watched) -> None:
    lines = printed(watched)
    kept = [parse(line) for line in read(lines, session=watched.of("other")[:6], raw=True)]
    assert [record["event"] for record in kept] == ["session opened", "execution"]
    assert list(read(lines, session="no-such-session")) == []


def test_a_line_is_readable_and_begins_with_what_matters() -> None:
    record = {
        "at": "2026-01-02T03:04:05.678Z",
        "level": "warning",
        "event": "execution",
        "owner": "abc",
        "status": "lost",
    }
    assert render(record) == "2026-01-02 03:04:05.678 warning  execution  status=lost owner=abc"
    assert render(record, colors=True).startswith("\x1b[33m")
    assert render({"event": "failed", "exception": "Traceback:\n  here"}) == "failed\n    Traceback:\n      here"


def test_lines_of_others_pass_as_they_are() -> None:
    lines = ["* Running on local URL", "", "Traceback (most recent call last):", "{not json", "[1, 2]", '{"event": 5}']
    assert list(read(lines)) == [
        "* Running on local URL",
        "Traceback (most recent call last):",
        "{not json",
        "[1, 2]",
        "5",
    ]
    assert list(read(lines, errors=True)) == ["Traceback (most recent call last):"]


def test_nothing_that_was_logged_can_move_the_readers_cursor() -> None:
    hostile = json.dumps(
        {"event": "a\x1b[2J", "path": "b\x1b]0;title\x07\n", "exception": "c\x1b[1m", "deep": {"x": "\x1b"}}
    )
    [line] = read([hostile])
    assert "\x1b" not in line
    assert "\x07" not in line
    assert list(read(["\x1b[2Jplain"])) == ["\\x1b[2Jplain"]


@given(
    st.text()
    | st.recursive(st.none() | st.integers() | st.text(), lambda d: st.dictionaries(st.text(), d)).map(json.dumps)
)
def test_any_line_can_be_read(line: str) -> None:
    record = parse(line)
    assert isinstance(render(record, colors=True), str)
    assert wanted(record)
    assert isinstance(wanted(record, errors=True, session="abc"), bool)
