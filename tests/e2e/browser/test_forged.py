"""Requests that no page of ours would send: another's session, an operator's act without the key, a server's file."""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

import httpx
import pytest

from tests.e2e.running import RunningSpace

KEY = "0123456789abcdef" * 2


class Raw:
    """Calls the functions behind the page as a browser does, with what a browser would not send."""

    def __init__(self, url: str) -> None:
        # an address of its own: its wrong keys shall not slow down the tests with a browser
        self.http = httpx.Client(base_url=url, timeout=60, headers={"X-Forwarded-For": "192.0.2.7"})
        self.page = secrets.token_hex(6)
        config = self.http.get("/config").json()
        names = {part["id"]: part["props"].get("elem_id") for part in config["components"]}
        self.functions = {
            (names.get(target[0]), target[1]): (each["id"], len(each["inputs"]))
            for each in config["dependencies"]
            for target in each["targets"]
        }
        self.load = [
            number for (_, event), (number, inputs) in self.functions.items() if (event, inputs) == ("load", 2)
        ]

    def open(self) -> None:
        """What a page does first."""
        assert len(self.load) == 1
        assert '"interactive":true' in self.send(self.load[0], ["", secrets.token_hex(16)], None)

    def call(self, element: str, event: str, data: list[Any], said: Any = None) -> str:
        """All that the server answers."""
        return self.send(self.functions[element, event][0], data, said)

    def send(self, function: int, data: list[Any], said: Any) -> str:
        body = {"data": data, "fn_index": function, "session_hash": self.page, "event_data": said, "trigger_id": None}
        # as text: a lone surrogate is `\\ud800` there
        sent = self.http.post(
            "/gradio_api/queue/join", content=json.dumps(body), headers={"Content-Type": "application/json"}
        )
        assert sent.status_code == 200, sent.text
        told = []
        with self.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": self.page}) as answer:
            for line in answer.iter_lines():
                told.append(line)
                if "close_stream" in line:
                    break
        return "\n".join(told)


@pytest.fixture
def raw(page_space: RunningSpace) -> Raw:
    return Raw(page_space.url)


def test_a_page_that_the_server_does_not_know_is_told_to_reload(raw: Raw) -> None:
    forged = {"owner": "anonymous", "conversation": None}
    assert "Reload the page" in raw.call("run", "click", [forged, "abc", "python", "print(1)", 30])


def test_anothers_session_is_no_session(raw: Raw, page_space: RunningSpace) -> None:
    raw.open()
    told = raw.call("run", "click", [None, None, "python", "secret = 'kept to myself'", 30])
    found = re.search(r'Session 1 [^"]*","([\w-]{22})"', told)
    assert found, told
    mine = found[1]
    other = Raw(page_space.url)
    other.open()
    for element, event, data in (
        ("run", "click", [None, mine, "python", "print(secret)", 30]),
        ("files-refresh", "click", [None, mine]),
        ("close-session", "click", [None, mine]),
        ("history-refresh", "click", [None, mine]),
        ("history", "select", [None, mine]),
        ("stop", "click", [None, mine]),
    ):
        answer = other.call(element, event, data, {"name": "x"})
        # only the sentence may name it, to whoever named it first
        for word in ("kept to myself", f'"{mine}"', "is closed"):
            assert word not in answer, (element, answer)
    assert "kept to myself" in raw.call("run", "click", [None, mine, "python", "print(secret)", 30])


def test_the_operators_acts_ask_for_the_key_every_time(raw: Raw) -> None:
    for event in ("stop", "delete"):
        assert "with the key first" in raw.call("operator-sessions", event, [True], {"name": "x"})
    for wrong in ("\ud800", ["x"], None, {"a": 1}):
        answer = raw.call("admin-open", "click", [wrong])
        assert "Newest" not in answer and "ADMIN_KEY" not in answer
    assert "with the key first" in raw.call("operator-sessions", "delete", [True], {"name": "x"})


def test_a_file_of_the_server_cannot_be_taken_for_an_upload(raw: Raw) -> None:
    raw.open()
    for path in ("/etc/passwd", "pyproject.toml", "/proc/self/environ"):
        given = {"path": path, "meta": {"_type": "gradio.FileData"}}
        answer = raw.call("drop", "upload", [None, None, [given]])
        assert "is there" not in answer and '"success":false' in answer, answer


def test_nonsense_is_answered_and_breaks_nothing(raw: Raw) -> None:
    raw.open()
    for data in (
        [None, {"a": 1}, "python", "1", 30],
        [None, None, "python", None, 30],
        [None, None, "python", "\ud800", 30],
        [None, None, "cobol", "1", 30],
        [None, None, "python", "1", 1e12],
        [None, None, ["python"], {"code": 1}, "x"],
    ):
        assert "process_completed" in raw.call("run", "click", data)
    assert "still well" in raw.call("run", "click", [None, None, "python", "print('still well')", 30])
