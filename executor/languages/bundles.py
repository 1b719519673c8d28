"""What goes into MIME bundles: text and JSON that a channel can carry, Markdown tables, words for what has none."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

WRAPPER = re.compile(r"<IPython\.core\.display\.\w+ object>")
"""The text of IPython's display objects, which says nothing of what they hold."""
_encode = json.JSONEncoder(allow_nan=False, ensure_ascii=False).encode


def markdown_table(frame: Any, *, rows: int = 20, columns: int = 20) -> str:
    """A DataFrame as a Markdown table of at most `rows` rows, from both ends, and `columns` columns."""
    shown = frame.iloc[:, :columns]
    wide = frame.shape[1] > columns
    head, tail = (shown, shown.iloc[:0]) if len(shown) <= rows else (shown.iloc[: rows // 2], shown.iloc[-rows // 2 :])
    width = shown.shape[1] + 1 + wide
    lines = [_row(["", *shown.columns, *["…"] * wide]), "|" + "---|" * width]
    lines += [_row([*values, *["…"] * wide]) for values in head.itertuples(name=None)]
    if len(tail):
        lines.append(_row(["…"] * width))
        lines += [_row([*values, *["…"] * wide]) for values in tail.itertuples(name=None)]
    return "\n".join(lines)


def _row(values: list[Any]) -> str:
    return "| " + " | ".join(_cell(value) for value in values) + " |"


def _cell(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    text = text if len(text) <= 100 else text[:99] + "…"
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


def words_for(data: Mapping[str, Any]) -> str:
    """Words for IPython's display objects, whose own text is their class name."""
    for mime in ("text/markdown", "text/latex"):
        if isinstance(data.get(mime), str):
            return str(data[mime])
    if isinstance(data.get("text/html"), str):
        text = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<[^>]*>", " ", data["text/html"][:20_000])
        return re.sub(r"\s+", " ", html.unescape(text)).strip()[:2_000] or "HTML"
    if "image/svg+xml" in data:
        return "SVG picture"
    if "application/json" in data:
        return _encode(data["application/json"])[:2_000]
    return str(data.get("text/plain", ""))


def clean_text(text: str) -> str:
    """`text` with halves of surrogate pairs, which no channel carries, spelled out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def json_value(value: Any) -> Any:
    """`value` if JSON can hold it, else as much of it as JSON can."""
    try:
        _encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        return _reduced(value, 30)
    return value


def json_size(value: Any) -> int:
    """Characters that `json_value` of something takes."""
    return len(_encode(value))


def _reduced(value: Any, depth: int) -> Any:
    """`value` as JSON can hold it: no NaN, no keys but text, no foreign objects, no endless depth."""
    if depth == 0:
        return "…"
    match value:
        case bool() | int() | None:
            return value
        case str():
            return clean_text(value)
        case float():
            return float(value) if value - value == 0 else None
        case bytes():
            return b64encode(value).decode()
        case Mapping():
            return {clean_text(str(key)): _reduced(item, depth - 1) for key, item in value.items()}
        case list() | tuple() | set():
            return [_reduced(item, depth - 1) for item in value]
    item: Callable[[], Any] | None = getattr(value, "tolist", None)
    return _reduced(item(), depth - 1) if callable(item) else clean_text(str(value))
