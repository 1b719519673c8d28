"""Arguments of a tool call are checked against its schema."""

from __future__ import annotations

import math
from typing import Any

import pytest

from space.arguments import BadArgument, checked

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "code": {"type": "string"},
        "session_id": {"type": "string"},
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": 600, "default": 30},
        "encoding": {"type": "string", "enum": ["text", "base64"], "default": "text"},
        "offset": {"type": "integer", "minimum": 0, "default": 0},
        "final": {"type": "boolean", "default": True},
    },
    "required": ["code"],
}


def test_defaults_are_filled_in() -> None:
    assert checked(SCHEMA, {"code": "1"}) == {
        "code": "1",
        "session_id": None,
        "timeout": 30,
        "encoding": "text",
        "offset": 0,
        "final": True,
    }


def test_null_and_empty_mean_not_given() -> None:
    values = checked(SCHEMA, {"code": "1", "session_id": "", "timeout": None, "final": None})
    assert (values["session_id"], values["timeout"], values["final"]) == (None, 30, True)


def test_a_tool_without_parameters_takes_anything() -> None:
    assert checked({"type": "object", "properties": {}}, {"input": "x"}) == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "'code' is missing"),
        ({"code": None}, "'code' is missing"),
        ({"code": 5}, "code must be a text"),
        ({"code": "1", "timeout": "soon"}, "timeout must be a number over 0 and at most 600, not 'soon'"),
        ({"code": "1", "timeout": 0}, "over 0"),
        ({"code": "1", "timeout": -1}, "over 0"),
        ({"code": "1", "timeout": 1e9}, "at most 600"),
        ({"code": "1", "timeout": math.nan}, "at most 600"),
        ({"code": "1", "timeout": True}, "a number"),
        ({"code": "1", "offset": 1.5}, "a whole number"),
        ({"code": "1", "offset": -1}, "at least 0"),
        ({"code": "1", "final": "yes"}, "true or false"),
        ({"code": "1", "encoding": "gzip"}, "one of text, base64"),
        ({"code": "1", "langauge": "x"}, "no argument 'langauge'"),
    ],
)
def test_a_wrong_argument_gets_a_sentence(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(BadArgument, match=words.replace("(", r"\(")):
        checked(SCHEMA, arguments)
