"""The Gradio page, a module a tab."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import gradio as gr

from executor import Executor, ExecutorError, Settings
from monitoring.history import History
from space.links import SESSION_PARAMETER, Links
from space.page.connect import connect_tab
from space.page.files import files_tab
from space.page.history import history_tab
from space.page.operator import operator_tab
from space.page.outputs import status_line
from space.page.run import run_tab
from space.page.sessions import PRIVATE, choices, session_bar
from space.page.visitor import visitor_of
from space.toolbox import has_started

_HERE = Path(__file__).parent
CSS = (_HERE / "page.css").read_text(encoding="utf-8")
HEAD = f"<script>{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>"
"""For `launch(head=…)`: Ctrl+Enter, and what is said while the connection is broken."""

_STARTING = "The interpreter is starting …"
_NOT_STARTED = "The interpreter is still starting. Reload the page in half a minute."

# a page of its own name for as long as its tab is open; storage may be forbidden in a frame, then only until a reload
_OPENED = f"""() => {{
  const token = new URLSearchParams(location.search).get('{SESSION_PARAMETER}') || '';
  const hex = (byte) => byte.toString(16).padStart(2, '0');
  const made = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), hex).join('');
  let key = '';
  try {{
    key = sessionStorage.getItem('code-interpreter-page') || made();
    sessionStorage.setItem('code-interpreter-page', key);
  }} catch {{ key = key || made(); }}
  return [token, key];
}}"""


def theme() -> gr.themes.Base:
    """Gradio's default look with the reader's own fonts, so that the page asks no other host for anything."""
    sans = ["system-ui", "-apple-system", "Segoe UI", "sans-serif"]
    mono = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
    return gr.themes.Default(font=sans, font_mono=mono)


def build_page(
    page: gr.Blocks,
    executor: Executor,
    settings: Settings,
    *,
    links: Links,
    history: History,
    ready: asyncio.Event,
) -> None:
    """Put the tabs into `page`, which must be the Blocks that are open.

    Opened with a signed link, a page works in that link's session; without, in sessions of its own. The server answers
    before the executor has started, so a page waits for `ready` before anything can be run on it.
    """
    gr.Markdown("# Code interpreter\nPython, JavaScript and bash in a live session.", elem_id="title")
    visitor = gr.State(None)
    token, key = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
    bar = session_bar(executor, visitor)
    with gr.Tabs(elem_id="tabs") as tabs:
        with gr.Tab("Run", id="run"):
            run = run_tab(executor, settings, links, visitor, bar.picker)
        with gr.Tab("Files", id="files") as files:
            files_tab(executor, links, files, visitor, bar)
        with gr.Tab("History", id="history") as ran:
            history_tab(executor, links, tabs, ran, visitor, bar, run)
        with gr.Tab("Connect", id="connect"):
            connect_tab(page, executor, settings)
        if settings.admin_key:
            with gr.Tab("Operator", id="operator"):
                operator_tab(executor, settings, history)

    async def opened(token: str, key: str) -> AsyncIterator[tuple[Any, Any, str, Any]]:
        if not ready.is_set():
            yield gr.skip(), gr.skip(), status_line("busy", _STARTING), gr.skip()
        known, sentence = visitor_of(links, token or "", key or "")
        said = status_line("bad", sentence) if sentence else ""
        try:
            up = await has_started(ready)
            sessions = choices(executor, known, known.granted) if up and known else gr.skip()
        except ExecutorError:
            up = False
        if not up:
            yield None, gr.skip(), status_line("bad", _NOT_STARTED), gr.Button(interactive=False)
            return
        yield known, sessions, said, gr.Button(interactive=known is not None)

    quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
    page.load(opened, [token, key], [visitor, bar.picker, bar.notice, run.button], js=_OPENED, **quiet).then(
        **run.resume
    )
