"""Views: interactive figures and tables as `ui://` resources, which chats such as LibreChat show in a frame."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from executor.results import Output
from executor.settings import UiResources

MAX_VIEWS = 8
MIME = "text/html"
"""The type that LibreChat renders, in a sandboxed frame of its own; the text is HTML."""
CLIENT_CHARS = 200
"""Characters that LibreChat tells the model about one view: its id, marker, address and type."""
CLIENT_PREFACE = 700
"""Characters of its instructions on how to place views, once for each result that has one."""

_CHART = re.compile(r"application/vnd\.(?:plotly|vega|vegalite)\.v[\d.]+\+json")
_SCRIPT = re.compile(r"<script\b", re.IGNORECASE)
_TABLE = re.compile(r"<table\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class View:
    """A resource of a result: HTML that a guest made, so for a frame without rights and never for our own pages."""

    uri: str
    html: str


def views_of(
    outputs: Iterable[Output], *, execution_id: str, which: UiResources, room: int
) -> tuple[list[View], str, int]:
    """The views that go out within `room` characters, a sentence on them, and the characters that they take.

    What the client will tell the model about them counts.
    """
    found = [html for output in outputs if (html := _html(output.data, which))]
    views: list[View] = []
    left = room - CLIENT_PREFACE
    for html in found:
        cost = len(html) + CLIENT_CHARS
        if cost <= left and len(views) < MAX_VIEWS:
            left -= cost
            views.append(View(f"ui://code-interpreter/{quote(execution_id, safe='')}/{len(views) + 1}", html))
    sentences = []
    if views:
        sentences.append(f"Attached for the person: {_count(len(views))}.")
    if missing := len(found) - len(views):
        sentences.append(f"{_count(missing)} had no room in this answer; the session's page shows what is missing.")
    return views, " ".join(sentences), room - left if views else 0


def _html(data: dict[str, Any], which: UiResources) -> str:
    html = data.get("text/html")
    if which == "off" or not isinstance(html, str) or not html.strip():
        return ""
    interactive = any(_CHART.fullmatch(mime) for mime in data) or _SCRIPT.search(html)
    return html if interactive or (which == "all" and _TABLE.search(html)) else ""


def _count(number: int) -> str:
    return "1 interactive view" if number == 1 else f"{number} interactive views"
