"""Checks the arguments of a tool call against its input schema, fast, and in sentences that a model can act on."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


class BadArgument(ValueError):
    """An argument is missing, unknown, or of the wrong kind; the sentence says what to give instead."""


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "string": ((str,), "a text"),
    "number": ((int, float), "a number"),
    "integer": ((int,), "a whole number"),
    "boolean": ((bool,), "true or false"),
}


def checked(schema: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` with the defaults of `schema` filled in; None for optional ones that have no default.

    An optional argument may be null or, if a text, empty: models send both for "not given". A tool without
    parameters takes anything, because some providers cannot send an empty object. Raises BadArgument.
    """
    properties: Mapping[str, Mapping[str, Any]] = schema["properties"]
    required = schema.get("required", ())
    if properties:
        for name in arguments:
            if name not in properties:
                raise BadArgument(f"there is no argument {name!r:.100}; this tool takes {', '.join(properties)}.")
    values: dict[str, Any] = {}
    for name, rule in properties.items():
        value = arguments.get(name)
        if name in required:
            if value is None:
                raise BadArgument(f"the argument {name!r} is missing.")
        elif value is None or (value == "" and "default" not in rule):
            values[name] = rule.get("default")
            continue
        values[name] = _checked(name, value, rule)
    return values


def _checked(name: str, value: Any, rule: Mapping[str, Any]) -> Any:
    if rule["type"] == "array":
        return _texts(name, value)
    types, noun = _KINDS[rule["type"]]
    # bool is an int to Python, but not to whoever wrote the call
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise BadArgument(f"{name} must be {noun}{_limits(rule)}, not {value!r:.100}.")
    if "enum" in rule and value not in rule["enum"]:
        raise BadArgument(f"{name} must be one of {', '.join(rule['enum'])}, not {value!r:.100}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low = rule.get("minimum", rule.get("exclusiveMinimum", -math.inf))
        high = rule.get("maximum", math.inf)
        # `not (a <= b)` and not `a > b`: a NaN must fail, too
        if not (low <= value <= high) or value == rule.get("exclusiveMinimum"):
            raise BadArgument(f"{name} must be {noun}{_limits(rule)}, not {value!r:.100}.")
    return value


def _texts(name: str, value: Any) -> list[str]:
    """A list of texts; also one text, and a list written as JSON, since models send both."""
    if isinstance(value, str):
        try:
            value = json.loads(value) if value.lstrip().startswith("[") else [value]
        except ValueError:
            value = [value]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise BadArgument(f"{name} must be a list of texts, not {value!r:.100}.")
    return value


def _limits(rule: Mapping[str, Any]) -> str:
    parts = []
    if "exclusiveMinimum" in rule:
        parts.append(f"over {rule['exclusiveMinimum']:g}")
    if "minimum" in rule:
        parts.append(f"of at least {rule['minimum']:g}")
    if "maximum" in rule:
        parts.append(f"at most {rule['maximum']:g}")
    return " " + " and ".join(parts) if parts else ""
