"""The tab of what ran: look at it, run it again, take it along as a notebook or with all files."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

import gradio as gr

from executor import Executor, ExecutorError, HistoryEntry
from space.content import clean
from space.links import Grant, Links
from space.page.actions import ON_CLICK, button, said
from space.page.outputs import status_line
from space.page.run import RunTab
from space.page.sessions import PRIVATE, SessionBar, sentence_of
from space.page.visitor import NOT_OPENED, Visitor

_SHOWN_CODE = 2_000


def history_tab(
    executor: Executor, links: Links, tabs: gr.Tabs, tab: gr.Tab, visitor: gr.State, bar: SessionBar, target: RunTab
) -> None:
    """The session's executions, newest first, each with `Run again` and `Edit`, which go to the tab `run` of `tabs`."""
    session = bar.picker
    status = gr.HTML(elem_id="history-status", js_on_load=None, apply_default_css=False)
    rows = gr.HTML(elem_id="history", js_on_load=ON_CLICK, apply_default_css=False)
    refresh = gr.Button("Refresh", size="sm", elem_id="history-refresh")

    async def entries_of(visitor: Visitor | None, chosen: str | None) -> Sequence[HistoryEntry]:
        if visitor is None or not chosen or not visitor.may_reach(chosen):
            return ()
        return await executor.history(chosen, **visitor.caller())

    async def show(visitor: Visitor | None, chosen: str | None) -> tuple[str, str]:
        if visitor is None:
            return status_line("bad", NOT_OPENED), ""
        try:
            listed = await entries_of(visitor, chosen)
        except ExecutorError as error:
            return status_line("bad", sentence_of(error)), ""
        if not listed:
            return "", "<p>Nothing has run in this session yet.</p>"
        assert chosen is not None
        return "", _downloads(links, visitor.grant(chosen)) + "".join(_entry(entry) for entry in reversed(listed))

    async def found(visitor: Visitor | None, chosen: str | None, event: gr.EventData) -> HistoryEntry:
        """The entry whose button was pressed. Raises gr.Error, after which no `success` follows."""
        if visitor is None:
            raise _refusal(NOT_OPENED)
        execution_id = said(event, "name")
        try:
            for entry in await entries_of(visitor, chosen):
                if entry.result.execution_id == execution_id:
                    return entry
        except ExecutorError as error:
            raise _refusal(sentence_of(error)) from None
        raise _refusal("That execution is no longer remembered. Press Refresh.")

    async def edit(visitor: Visitor | None, chosen: str | None, event: gr.EventData) -> tuple[Any, ...]:
        entry = await found(visitor, chosen, event)
        if entry.cut:
            gr.Warning(f"{entry.cut} The editor has no more of it.", duration=None)
        return entry.language, entry.code, gr.Tabs(selected="run"), ""

    async def fetch_whole(visitor: Visitor | None, chosen: str | None, event: gr.EventData) -> tuple[Any, ...]:
        entry = await found(visitor, chosen, event)
        if entry.cut:
            raise _refusal(f"{entry.cut} That is not run. Press Edit to complete it first.")
        return entry.language, entry.code, gr.Tabs(selected="run"), ""

    quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
    here = [visitor, session]
    tab.select(show, here, [status, rows], **quiet)
    refresh.click(show, here, [status, rows], **quiet)
    bar.on_choice(show, here, [status, rows])
    into = [target.language, target.code, tabs, status]
    rows.edit(edit, here, into, **quiet)
    rows.select(fetch_whole, here, into, **quiet).success(**target.run)


def _refusal(sentence: str) -> gr.Error:
    return gr.Error(sentence, print_exception=False)


def _downloads(links: Links, grant: Grant) -> str:
    return (
        '<p class="ci-files">'
        f'<a class="ci-chip" id="save-notebook" href="{escape(links.notebook(grant))}" download>Notebook (.ipynb)</a> '
        f'<a class="ci-chip" id="save-session" href="{escape(links.export(grant))}" download>'
        "Notebook and all files (.zip)</a></p>"
    )


def _entry(entry: HistoryEntry) -> str:
    result = entry.result
    at = datetime.fromtimestamp(entry.timestamp, UTC)
    code = entry.code if len(entry.code) <= _SHOWN_CODE else f"{entry.code[:_SHOWN_CODE]}\n… {entry.cut}"
    kind = "ok" if result.success else "bad"
    return (
        f'<section class="ci-entry"><header><span class="ci-{kind}">{escape(result.status)}</span> '
        f"{escape(entry.language)} · {at:%H:%M:%S} UTC · {result.execution_time:.2f} s "
        f"{button('select', 'Run again', result.execution_id)}{button('edit', 'Edit', result.execution_id)}</header>"
        f'<pre class="ci-value">{escape(clean(code))}</pre></section>'
    )
