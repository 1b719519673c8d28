"""The tab of a session's folder: bring files in, take them out, rename and delete them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from executor import Executor, ExecutorError, FileInfo
from space.content import clean, size_words
from space.links import Links
from space.page import execution
from space.page.actions import ON_CLICK, button, said
from space.page.outputs import status_line
from space.page.sessions import PRIVATE, SessionBar, choices, sentence_of
from space.page.visitor import NOT_OPENED, Visitor

_CHUNK = 1 << 20
_LISTED = 500


def files_tab(executor: Executor, links: Links, tab: gr.Tab, visitor: gr.State, bar: SessionBar) -> None:
    """A place to drop files, and the list of what is there, made anew whenever the tab is opened."""
    session = bar.picker
    drop = gr.File(file_count="multiple", label="Drop files here: the code finds them by name", elem_id="drop")
    status = gr.HTML(elem_id="files-status", js_on_load=None, apply_default_css=False)
    table = gr.HTML(elem_id="files", js_on_load=ON_CLICK, apply_default_css=False)
    refresh = gr.Button("Refresh", size="sm", elem_id="files-refresh")

    async def listing(visitor: Visitor, session_id: str) -> str:
        found = await executor.list_files(session_id, **visitor.caller())
        grant = visitor.grant(session_id)
        rows = [_row(file, links.file(grant, file.path)) for file in found[:_LISTED]]
        return _table(rows, len(found), links.archive(grant))

    async def show(visitor: Visitor | None, chosen: str | None) -> tuple[str, str]:
        if visitor is None:
            return status_line("bad", NOT_OPENED), ""
        if not chosen or not visitor.may_reach(chosen):
            return "", "<p>No session yet. Dropping a file makes one.</p>"
        try:
            return "", await listing(visitor, chosen)
        except ExecutorError as error:
            return status_line("bad", sentence_of(error)), ""

    async def upload(visitor: Visitor | None, chosen: str | None, dropped: list[str] | None) -> tuple[Any, ...]:
        paths = [Path(str(name)) for name in dropped or ()]
        sentences: list[str] = []
        kind, rows, picker = "ok", "", gr.skip()
        try:
            if visitor is None:
                return None, status_line("bad", NOT_OPENED), "", gr.skip()
            session_id = await execution.session_of(executor, visitor, chosen or "")
            for path in paths:
                try:
                    taken = await executor.put_file(session_id, path.name, _chunks(path), **visitor.caller())
                    sentences.append(f"{taken.path} is there ({size_words(taken.size)}).")
                except ExecutorError as error:
                    kind = "bad"
                    sentences.append(str(error))
                except OSError:
                    kind = "bad"
                    sentences.append(f"{path.name} was lost on its way. Drop it again.")
            rows = await listing(visitor, session_id)
            picker = choices(executor, visitor, session_id)
        except ExecutorError as error:
            kind = "bad"
            sentences.append(sentence_of(error))
        finally:
            await asyncio.to_thread(_forget, paths)
        return None, status_line(kind, " ".join(sentences)), rows, picker

    async def delete(visitor: Visitor | None, chosen: str | None, event: gr.EventData) -> tuple[str, str]:
        path = said(event, "name")
        return await change(visitor, chosen, path, None)

    async def rename(visitor: Visitor | None, chosen: str | None, event: gr.EventData) -> tuple[str, str]:
        return await change(visitor, chosen, said(event, "name"), said(event, "text"))

    async def change(visitor: Visitor | None, chosen: str | None, path: str, to: str | None) -> tuple[str, str]:
        status, rows = await show(visitor, chosen)
        if visitor is None or not chosen or not rows or not visitor.may_reach(chosen):
            return status, rows
        try:
            if to is None:
                await executor.delete_file(chosen, path, **visitor.caller())
                status = status_line("ok", f"{path} is deleted.")
            else:
                moved = await executor.move_file(chosen, path, to, **visitor.caller())
                status = status_line("ok", f"{path} is now {moved.path}.")
            rows = await listing(visitor, chosen)
        except ExecutorError as error:
            status = status_line("bad", sentence_of(error))
        return status, rows

    here, shown = [visitor, session], [status, table]
    quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
    tab.select(show, here, shown, **quiet)
    refresh.click(show, here, shown, **quiet)
    bar.on_choice(show, here, shown)
    drop.upload(upload, [visitor, session, drop], [drop, status, table, session], show_progress="minimal", **PRIVATE)
    table.delete(delete, here, shown, **quiet)
    table.edit(rename, here, shown, **quiet)


async def _chunks(path: Path) -> AsyncIterator[bytes]:
    # Gradio has put the upload into a file of its own; a disk may be slow, so not on the event loop
    source = await asyncio.to_thread(path.open, "rb")
    try:
        while data := await asyncio.to_thread(source.read, _CHUNK):
            yield data
    finally:
        source.close()


def _forget(paths: Sequence[Path]) -> None:
    """Delete Gradio's copies, each of which has a folder of its own."""
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
            path.parent.rmdir()


def _row(file: FileInfo, link: str) -> str:
    path, at = escape(clean(file.path)), datetime.fromtimestamp(file.modified, UTC)
    rename = (
        f'<details><summary>Rename</summary><input aria-label="New name" value="{path}">'
        f"{button('edit', 'OK', file.path)}</details>"
    )
    return (
        f'<tr><td><a href="{escape(link)}" download>{path}</a></td><td>{size_words(file.size)}</td>'
        f"<td>{at:%Y-%m-%d %H:%M:%S}</td>"
        f'<td class="ci-acts">{rename}{button("delete", "Delete", file.path, sure="Really?")}</td></tr>'
    )


def _table(rows: Sequence[str], count: int, archive: str) -> str:
    if not rows:
        return "<p>The folder is empty.</p>"
    more = f"<p>and {count - len(rows):,} more; the zip has them all.</p>" if count > len(rows) else ""
    return (
        '<div class="ci-wide"><table class="ci-table"><thead><tr><th>File</th><th>Size</th><th>Changed, UTC</th>'
        f"<th></th></tr></thead><tbody>{''.join(rows)}</tbody></table></div>{more}"
        f'<p><a class="ci-chip" href="{escape(archive)}" download>All as a zip</a></p>'
    )
