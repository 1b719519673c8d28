"""MCP Apps: the one view that shows what a call gave, for clients that say at their start that they can show it.

The extension `io.modelcontextprotocol/ui`, version 2026-01-26
(https://github.com/modelcontextprotocol/ext-apps/blob/main/specification/2026-01-26/apps.mdx). The view is a template
of ours, read once; what a call gave comes to it from the client, so that the model pays nothing for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

from executor.results import Output
from executor.settings import UiResources
from space.views import MAX_VIEWS, view_html

EXTENSION = "io.modelcontextprotocol/ui"
MIME = "text/html;profile=mcp-app"
URI = "ui://code-interpreter/result"
VIEWS = "code-interpreter/views"
"""Member of a result's `_meta` that holds the HTML of its views: for the view's eyes, not the model's."""
MAX_CHARS = 4_000_000
"""Characters of HTML in one result; it is no text for a model, but it has to travel."""

TOOL_META: dict[str, Any] = {"ui": {"resourceUri": URI}}
"""What says of a tool that the view shows its results."""
RESOURCE_META: dict[str, Any] = {
    # Which host a guest's library loads its script, fonts or map tiles from is the library's choice. Inside the frame
    # that its HTML gets there is nothing but that HTML, and it may send nothing: no connectDomains.
    "ui": {"csp": {"resourceDomains": ["https:"]}, "prefersBorder": False}
}


_shown: ContextVar[bool] = ContextVar("apps_shown", default=False)


@contextmanager
def showing(shown: bool) -> Iterator[None]:
    """Say for what is answered within, also by tasks started within, whether the client shows the view."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


def shown_by_client() -> bool:
    """Whether the client of this call shows results in the view."""
    return _shown.get()


@cache
def template() -> str:
    """The view's page."""
    return Path(__file__).with_name("app.html").read_text(encoding="utf-8")


def advertised(capabilities: Mapping[str, Any]) -> bool:
    """Whether a client's capabilities, as it sent them, name the extension with our type.

    Clients of the extension's drafts named it under `experimental`.
    """
    for place in ("extensions", "experimental"):
        extensions = capabilities.get(place)
        extension = extensions.get(EXTENSION) if isinstance(extensions, Mapping) else None
        if isinstance(extension, Mapping):
            kinds = extension.get("mimeTypes")
            return isinstance(kinds, list) and MIME in kinds
    return False


def result_meta(outputs: Iterable[Output], which: UiResources) -> dict[str, Any]:
    """The `_meta` of a result whose client shows the view; empty where there is nothing interactive."""
    found: list[str] = []
    room = MAX_CHARS
    for output in outputs:
        html = view_html(output.data, which)
        if html and len(html) <= room and len(found) < MAX_VIEWS:
            room -= len(html)
            found.append(html)
    return {VIEWS: found} if found else {}
