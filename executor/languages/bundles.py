"""What goes into MIME bundles: text and JSON that a channel can carry, Markdown tables, words for what has none."""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

WRAPPER = re.compile(r"<IPython\.core\.display\.\w+ object>|<[\w.]{1,200}(?: object)? at 0x[0-9a-f]{1,16}>")
"""The text of IPython's display objects, and of any object without words of its own: it says nothing of them."""
_SIDES = ("width", "height")
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
    """Words for what has only its class name for a text."""
    for mime in ("text/markdown", "text/latex"):
        if isinstance(data.get(mime), str):
            return str(data[mime])
    if isinstance(data.get("text/html"), str):
        return html_words(data["text/html"]) or "HTML"
    if "image/svg+xml" in data:
        return svg_words(str(data["image/svg+xml"]))
    if "application/json" in data:
        return _encode(data["application/json"])[:2_000]
    return str(data.get("text/plain", ""))


def html_words(source: str) -> str:
    """The words of HTML, a line for each row or block."""
    text = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>", " ", source[:20_000])
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"(?i)<(?:br|/tr|/p|/div|/h\d|/li)\b[^>]*>", "\n", text)
    text = html.unescape(re.sub(r"<[^>]*>", " ", text))
    return "\n".join(line for row in text.split("\n") if (line := " ".join(row.split())))[:2_000]


def svg_words(source: str) -> str:
    """`SVG picture`, with the size and the title that it names itself."""
    head = source[:20_000]
    words = "SVG picture"
    if tag := re.search(r"(?is)<svg\b[^>]{0,2000}>", head):
        size = [re.search(rf"""\b{side}=["']([\d.]{{1,10}}(?:px|pt|mm|cm|in|%)?)["']""", tag[0]) for side in _SIDES]
        if size[0] and size[1]:
            words += f" {size[0][1]} x {size[1][1]}"
    if title := re.search(r"(?is)<title\b[^>]{0,200}>([^<]{1,300})</title>", head):
        words += f" “{' '.join(html.unescape(title[1]).split())}”"
    return words


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
