"""Views: interactive figures and tables as `ui://` resources, which chats such as LibreChat show in a frame."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
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

_ROOT = "ui://code-interpreter"
_CARD_HEAD = (
    '<!doctype html><meta charset="utf-8"><style>body{font:14px/1.5 system-ui,sans-serif;margin:8px;color-scheme:light '
    "dark}ul{list-style:none;margin:0;padding:0}li{padding:4px 0;overflow-wrap:anywhere}</style>"
)
# a frame without the right to open windows asks the chat for it, in the words of its kind of views
_CARD_SCRIPT = (
    "<script>document.addEventListener('click',(event)=>{const link=event.target.closest('a');if(!link)return;"
    "event.preventDefault();if(!window.open(link.href,'_blank'))"
    "parent.postMessage({type:'link',payload:{url:link.href}},'*')})</script>"
)
_CHART = re.compile(r"application/vnd\.(?:plotly|vega|vegalite)\.v[\d.]+\+json")
_SCRIPT = re.compile(r"<script\b", re.IGNORECASE)
_TABLE = re.compile(r"<table\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class View:
    """A resource of a result: HTML that a guest made, so for a frame without rights and never for our own pages."""

    uri: str
    html: str


def download_card(addresses: Mapping[str, str], sizes: Mapping[str, int], *, execution_id: str) -> View:
    """Links to files, as a view of our own making: the names are the guest's, the markup and the addresses ours."""
    items = "".join(
        f'<li><a href="{escape(address)}" target="_blank" rel="noopener" download>{escape(path)}</a> '
        f"<small>{sizes.get(path, 0):,} bytes</small></li>"
        for path, address in addresses.items()
    )
    return View(f"{_ROOT}/{quote(execution_id, safe='')}/files", f"{_CARD_HEAD}<ul>{items}</ul>{_CARD_SCRIPT}")


def views_of(
    outputs: Iterable[Output], *, execution_id: str, which: UiResources, room: int
) -> tuple[list[View], str, int]:
    """The views that go out within `room` characters, a sentence on them, and the characters that they take.

    What the client will tell the model about them counts.
    """
    found = [html for output in outputs if (html := view_html(output.data, which))]
    views: list[View] = []
    left = room - CLIENT_PREFACE
    for html in found:
        cost = len(html) + CLIENT_CHARS
        if cost <= left and len(views) < MAX_VIEWS:
            left -= cost
            views.append(View(f"{_ROOT}/{quote(execution_id, safe='')}/{len(views) + 1}", html))
    sentences = []
    if views:
        sentences.append(f"Attached for the person: {count_views(len(views))}.")
    if missing := len(found) - len(views):
        sentences.append(
            f"{count_views(missing)} had no room in this answer; the session's page shows what is missing."
        )
    return views, " ".join(sentences), room - left if views else 0


def view_html(data: Mapping[str, Any], which: UiResources) -> str:
    """The HTML of a displayed value that goes out as a view; empty where none does."""
    html = data.get("text/html")
    if which == "off" or not isinstance(html, str) or not html.strip():
        return ""
    interactive = any(_CHART.fullmatch(mime) for mime in data) or _SCRIPT.search(html)
    return html if interactive or (which == "all" and _TABLE.search(html)) else ""


def count_views(number: int) -> str:
    """`1 interactive view`, `2 interactive views`."""
    return "1 interactive view" if number == 1 else f"{number} interactive views"
