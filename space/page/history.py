"""The tab of what ran: look at it, run it again, take it along as a notebook."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

import gradio as gr

from executor import Executor, ExecutorError, HistoryEntry
from space.content import clean
from space.page.actions import ON_CLICK, button, said
from space.page.notebook import notebook, picture_paths, picture_type
from space.page.outputs import status_line
from space.page.run import RunTab
from space.page.sessions import PRIVATE, SessionBar, sentence_of
from space.page.visitor import NOT_OPENED, Visitor

_PICTURE_BYTES = 8_000_000
"""Bytes of pictures in one notebook; the newest come first."""
_SHOWN_CODE = 2_000

_SAVE = """(text) => {
  if (!text) return [];
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type: 'application/x-ipynb+json' }));
  link.download = 'session.ipynb';
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  return [];
}"""


def history_tab(
    executor: Executor, tabs: gr.Tabs, tab: gr.Tab, visitor: gr.State, bar: SessionBar, target: RunTab
) -> None:
    """The session's executions, newest first, each with `Run again` and `Edit`, which go to the tab `run` of `tabs`."""
    session = bar.picker
    with gr.Row(elem_classes="ci-bar"):
        refresh = gr.Button("Refresh", size="sm", min_width=110)
        save = gr.Button("Download as .ipynb", size="sm", min_width=110, elem_id="save-notebook")
    status = gr.HTML(elem_id="history-status", js_on_load=None, apply_default_css=False)
    rows = gr.HTML(elem_id="history", js_on_load=ON_CLICK, apply_default_css=False)
    made = gr.Textbox(visible="hidden", elem_id="notebook")

    def entries_of(visitor: Visitor | None, chosen: str | None) -> Sequence[HistoryEntry]:
        if visitor is None or not chosen or not visitor.may_reach(chosen):
            return ()
        return executor.history(chosen, **visitor.caller())

    async def show(visitor: Visitor | None, chosen: str | None) -> tuple[str, str]:
        if visitor is None:
            return status_line("bad", NOT_OPENED), ""
        try:
            listed = entries_of(visitor, chosen)
        except ExecutorError as error:
            return status_line("bad", sentence_of(error)), ""
        if not listed:
            return "", "<p>Nothing has run in this session yet.</p>"
        return "", "".join(_entry(entry) for entry in reversed(listed))

    async def fetch(visitor: Visitor | None, chosen: str | None, event: gr.EventData) -> tuple[Any, ...]:
        execution_id = said(event, "name")
        try:
            for entry in entries_of(visitor, chosen):
                if entry.result.execution_id == execution_id:
                    return entry.language, entry.code, gr.Tabs(selected="run"), ""
            sentence = "That execution is no longer remembered. Press Refresh."
        except ExecutorError as error:
            sentence = sentence_of(error)
        return gr.skip(), gr.skip(), gr.skip(), status_line("bad", sentence)

    async def make_notebook(visitor: Visitor | None, chosen: str | None) -> tuple[str, str]:
        try:
            listed = entries_of(visitor, chosen)
            if visitor is None or not chosen or not listed:
                return "", status_line("bad", "There is nothing to download: nothing has run in this session yet.")
            pictures = await _pictures(executor, visitor, chosen, picture_paths(listed))
            text = await asyncio.to_thread(json.dumps, notebook(listed, pictures), ensure_ascii=False, indent=1)
        except ExecutorError as error:
            return "", status_line("bad", sentence_of(error))
        return text, ""

    quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
    here = [visitor, session]
    tab.select(show, here, [status, rows], **quiet)
    refresh.click(show, here, [status, rows], **quiet)
    bar.on_choice(show, here, [status, rows])
    into = [target.language, target.code, tabs, status]
    rows.edit(fetch, here, into, **quiet)
    rows.select(fetch, here, into, **quiet).success(**target.run)
    save.click(make_notebook, here, [made, status], **quiet).then(None, made, None, js=_SAVE, **PRIVATE)


async def _pictures(executor: Executor, visitor: Visitor, session_id: str, paths: Sequence[str]) -> dict[str, str]:
    """The pictures that fit, as a notebook holds them; those that the code has deleted since are left out."""
    found: dict[str, str] = {}
    room = _PICTURE_BYTES
    for path in paths:
        data = b""
        try:
            async for chunk in executor.get_file(session_id, path, length=room + 1, **visitor.caller()):
                data += chunk
        except ExecutorError:
            continue
        if len(data) > room:
            break
        room -= len(data)
        svg = picture_type(path) == "image/svg+xml"
        found[path] = data.decode("utf-8", "replace") if svg else base64.b64encode(data).decode()
    return found


def _entry(entry: HistoryEntry) -> str:
    result = entry.result
    at = datetime.fromtimestamp(entry.timestamp, UTC)
    code = entry.code if len(entry.code) <= _SHOWN_CODE else entry.code[:_SHOWN_CODE] + "\n…"
    kind = "ok" if result.success else "bad"
    return (
        f'<section class="ci-entry"><header><span class="ci-{kind}">{escape(result.status)}</span> '
        f"{escape(entry.language)} · {at:%H:%M:%S} UTC · {result.execution_time:.2f} s "
        f"{button('select', 'Run again', result.execution_id)}{button('edit', 'Edit', result.execution_id)}</header>"
        f'<pre class="ci-value">{escape(clean(code))}</pre></section>'
    )
