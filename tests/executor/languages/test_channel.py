"""Frames and events, as they come from a worker that cannot be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor.languages.channel import MAX_ERROR, MAX_FRAME, MAX_NOTICE, Decoder, ProtocolError, encode
from executor.languages.checks import check_event
from executor.languages.javascript import JavaScript

DONE: dict[str, Any] = {
    "event": "done",
    "id": "e1",
    "status": "error",
    "error": {"type": "T", "message": "m", "line": 3, "traceback": "t", "hint": "h"},
    "return_code": 1,
    "notices": ["A sentence."],
    "variables": [{"name": "x", "type": "int", "summary": "= 1", "change": "new"}],
}
PICTURE = {"mime": "image/png", "data": "AAAA", "width": 1, "height": 2, "path": None, "alt": ""}
DISPLAY: dict[str, Any] = {"event": "display", "id": "e1", "data": {"a/b": [1]}, "picture": PICTURE, "is_result": True}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_frames_survive_any_cutting() -> None:
    stream = b"".join(encode({"n": n, "t": "ä" * n}) for n in range(5))
    for step in (1, 2, 3, 7, len(stream)):
        decoder = Decoder()
        found = [m for at in range(0, len(stream), step) for m in decoder.feed(stream[at : at + step])]
        assert [m["n"] for m in found] == [0, 1, 2, 3, 4]


def test_good_events_pass_unchanged() -> None:
    for event in ({"event": "ready"}, DONE, DISPLAY, {**DISPLAY, "picture": None}, {**DONE, "error": None}):
        assert check_event(dict(event)) == event


@pytest.mark.parametrize(
    "change",
    [
        {"id": ""},
        {"id": "x" * 201},
        {"id": 5},
        {"status": "fine"},
        {"status": []},
        {"return_code": True},
        {"return_code": 1.0},
        {"return_code": 2**40},
        {"notices": "no"},
        {"notices": [1]},
        {"notices": ["n"] * 51},
        {"notices": ["n" * (MAX_NOTICE + 1)]},
        {"variables": {}},
        {"variables": [1]},
        {"variables": [DONE["variables"][0]] * 51},
        {"variables": [{**DONE["variables"][0], "name": "n" * 201}]},
        {"variables": [{**DONE["variables"][0], "change": "gone"}]},
        {"error": {**DONE["error"], "hint": 5}},
        {"error": {**DONE["error"], "type": "x" * (MAX_ERROR + 1)}},
        {"error": {**DONE["error"], "message": "x" * (MAX_ERROR + 1)}},
        {"error": {**DONE["error"], "traceback": "x" * (MAX_ERROR + 1)}},
        {"error": {**DONE["error"], "hint": "x" * (MAX_ERROR + 1)}},
        {"error": []},
        {"error": {"type": "T"}},
        {"error": {**DONE["error"], "line": 0}},
        {"error": {**DONE["error"], "line": "3"}},
        {"event": "nonsense"},
        {"event": []},
    ],
)
def test_a_wrong_end_of_a_cell_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        check_event({**DONE, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"data": []},
        {"is_result": 1},
        {"picture": "p"},
        {"picture": {**PICTURE, "data": b"".hex}},
        {"picture": {**PICTURE, "width": -1}},
        {"picture": {**PICTURE, "path": 4}},
        {"picture": {**PICTURE, "mime": "x"}},
        {"picture": {**PICTURE, "mime": "image/svg+xml"}},
    ],
)
def test_a_wrong_display_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        check_event({**DISPLAY, **change})


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"1",
        b'"x"',
        b"null",
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b"\xff\xfe",
        b'{"a":"\xed\xa0\x80"}',
        '{"a":"\\ud800"}'.encode("utf-16-le"),
        '{"a":"\\ud800"}'.encode("utf-32"),
        b"[" * 200_000,
        b"9" * 10_000,
        b"",
    ],
)
def test_a_frame_that_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed(len(body).to_bytes(4, "big") + body)


def test_an_overlong_frame_is_refused_before_it_arrives() -> None:
    with pytest.raises(ProtocolError):
        Decoder().feed((MAX_FRAME + 1).to_bytes(4, "big"))
    with pytest.raises(ValueError, match="over the"):
        encode({"code": "x" * MAX_FRAME})


def test_half_a_surrogate_pair_becomes_text_that_can_be_written() -> None:
    body = b'{"t":"\\ud83d\\ude00 \\ud800","\\udfff":["\\udc00"]}'
    (message,) = Decoder().feed(len(body).to_bytes(4, "big") + body)
    assert message["t"].startswith("😀 ")
    json.dumps(message, ensure_ascii=False).encode()


@given(st.lists(st.binary(max_size=60), max_size=8))
@settings(max_examples=200, deadline=None)
def test_random_bytes_give_events_or_a_protocol_error(chunks: list[bytes]) -> None:
    language = JavaScript(folder=Path("/nowhere"), memory_mb=100)
    try:
        for chunk in chunks:
            language.feed(chunk)
    except ProtocolError:
        pass


@given(
    st.dictionaries(
        st.sampled_from([*DONE, *DISPLAY]), json_values | st.sampled_from(["done", "display", "ok", DONE["error"]])
    )
)
@settings(max_examples=300, deadline=None)
def test_random_objects_give_events_or_a_protocol_error(message: dict[str, Any]) -> None:
    language = JavaScript(folder=Path("/nowhere"), memory_mb=100)
    try:
        for event in language.feed(encode(message)):
            assert event["event"] in ("ready", "display", "done")
    except ProtocolError:
        pass
