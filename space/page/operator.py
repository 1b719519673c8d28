"""The operator's tab: what happens, what happened in the last hour, and a hand on every session."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

import gradio as gr

from executor import Executor, ExecutorError, Settings
from executor.events import AccessRefused
from monitoring.history import History, Note, Sample, SessionRow
from space.attempts import Attempts
from space.content import clean
from space.page.actions import ON_CLICK, button, said
from space.page.charts import line_chart
from space.page.outputs import status_line
from space.page.sessions import PRIVATE

EVERY = 5.0
"""Seconds between two updates of the tab while it is open."""
_SHOWN_NOTES = 30


def operator_tab(executor: Executor, settings: Settings, history: History) -> None:
    """Asks for `ADMIN_KEY`, which must be set, and then shows everything; the right ends with the page.

    Wrong keys are answered late, and after some of them no further key from that address is looked at for a while.
    """
    attempts = Attempts()
    admitted = gr.State(False)
    with gr.Group() as door, gr.Row(elem_classes="ci-bar"):
        key = gr.Textbox(type="password", label="ADMIN_KEY", elem_id="admin-key", scale=4)
        enter = gr.Button("Open", elem_id="admin-open", min_width=110)
    refused = gr.HTML(elem_id="operator-status", js_on_load=None, apply_default_css=False)
    with gr.Column(visible=False) as room:
        charts = gr.HTML(elem_id="operator-charts", js_on_load=None, apply_default_css=False)
        gr.Markdown("### Sessions")
        sessions = gr.HTML(elem_id="operator-sessions", js_on_load=ON_CLICK, apply_default_css=False)
        gr.Markdown("### Newest violations")
        violations = gr.HTML(elem_id="operator-violations", js_on_load=None, apply_default_css=False)
        gr.Markdown("### Newest errors")
        errors = gr.HTML(elem_id="operator-errors", js_on_load=None, apply_default_css=False)
        with gr.Accordion("Sandbox", open=False):
            sandbox = gr.HTML(elem_id="operator-sandbox", js_on_load=None, apply_default_css=False)
        with gr.Accordion("Settings in force", open=False):
            in_force = gr.HTML(elem_id="operator-settings", js_on_load=None, apply_default_css=False)
    timer = gr.Timer(EVERY, active=False)

    def live() -> tuple[str, str, str, str]:
        return (
            _charts(history.samples()),
            _sessions(history.sessions()),
            _notes(history.violations()),
            _notes(history.errors()),
        )

    async def open_door(given: str, request: gr.Request) -> tuple[Any, ...]:
        nothing = (gr.skip(),) * 6
        address = _address(request)
        if attempts.exhausted(address):
            executor.bus.publish(AccessRefused(reason="key", path="/operator"))
            refusal = status_line("bad", "Too many wrong keys; try again in a minute.")
            return False, "", refusal, gr.skip(), gr.skip(), gr.skip(), *nothing
        if not settings.admin_key or not _same(given, settings.admin_key):
            await asyncio.sleep(attempts.failed(address))
            executor.bus.publish(AccessRefused(reason="key", path="/operator"))
            return False, "", status_line("bad", "That is not the key."), gr.skip(), gr.skip(), gr.skip(), *nothing
        attempts.succeeded(address)
        visible = gr.Group(visible=False), gr.Column(visible=True), gr.Timer(active=True)
        return True, "", "", *visible, *live(), _sandbox(executor), _settings(settings.public())

    async def update(admitted: bool) -> tuple[Any, ...]:
        return live() if admitted is True else (gr.skip(),) * 4

    async def interrupt(admitted: bool, event: gr.EventData) -> tuple[str, str]:
        return await act(admitted, said(event, "name"), close=False)

    async def close(admitted: bool, event: gr.EventData) -> tuple[str, str]:
        return await act(admitted, said(event, "name"), close=True)

    async def act(admitted: bool, pseudonym: str, *, close: bool) -> tuple[str, str]:
        if admitted is not True:
            return status_line("bad", "Open the tab with the key first."), ""
        # a session's id would be a key to it, so the browser knows only its pseudonym
        found = [row.session_id for row in history.sessions() if row.session == pseudonym]
        if not found:
            return status_line("bad", "That session has ended."), _sessions(history.sessions())
        try:
            if close:
                await executor.admin_close(found[0])
                sentence = f"Session {pseudonym} is closed."
            elif await executor.admin_interrupt(found[0]):
                sentence = f"What ran in session {pseudonym} is stopped."
            else:
                sentence = f"Nothing runs in session {pseudonym}."
        except ExecutorError as error:
            return status_line("bad", str(error)), _sessions(history.sessions())
        await asyncio.sleep(0.3)  # the table is made from events, which come a little late
        return status_line("ok", sentence), _sessions(history.sessions())

    quiet: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
    shown = [charts, sessions, violations, errors]
    opened = [admitted, key, refused, door, room, timer, *shown, sandbox, in_force]
    enter.click(open_door, key, opened, trigger_mode="once", **quiet)
    key.submit(open_door, key, opened, trigger_mode="once", **quiet)
    timer.tick(update, admitted, shown, **quiet)
    sessions.stop(interrupt, admitted, [refused, sessions], **quiet)
    sessions.delete(close, admitted, [refused, sessions], **quiet)


def _same(given: object, key: str) -> bool:
    return isinstance(given, str) and hmac.compare_digest(given.encode("utf-8", "replace"), key.encode())


def _address(request: gr.Request) -> str:
    """Where a request comes from: the peer, and who the proxy says it is, the last name being the proxy's own."""
    peer = request.client.host if request.client else ""
    return f"{peer} {request.headers.get('x-forwarded-for', '').rpartition(',')[2].strip()[:100]}"


def _charts(samples: Sequence[Sample]) -> str:
    def line(name: str, scale: float = 1.0) -> list[tuple[float, float | None]]:
        values = [(sample.at, getattr(sample, name)) for sample in samples]
        return [(at, None if value is None else value * scale) for at, value in values]

    return '<div class="ci-charts">{}</div>'.format(
        "".join(
            (
                line_chart(
                    "Executions in 10 s",
                    {"all": line("executions"), "failed": line("failed"), "violations": line("violations")},
                    words=_count,
                ),
                line_chart("Duration", {"p50": line("p50"), "p95": line("p95"), "p99": line("p99")}, words=_seconds),
                line_chart(
                    "Memory and folders, MiB",
                    {"memory": line("memory", 2**-20), "folders": line("folder_bytes", 2**-20)},
                    words=_count,
                ),
                line_chart("Sessions", {"live": line("sessions"), "at work": line("in_flight")}, words=_count),
            )
        )
    )


def _sessions(rows: Sequence[SessionRow]) -> str:
    if not rows:
        return "<p>No session is alive.</p>"
    cells = [
        (
            row.session,
            row.owner,
            _duration(row.age),
            _duration(row.idle) if not row.running else "at work",
            str(row.executions),
            f"{row.memory / 2**20:.0f} MiB",
            f"{row.folder_bytes / 2**20:.1f} MiB",
            str(row.processes),
            f"{row.running}, {_duration(row.running_seconds)}" if row.running else "",
        )
        for row in rows
    ]
    acts = [
        button("stop", "Interrupt", row.session) + button("delete", "Close", row.session, sure="Really?")
        for row in rows
    ]
    heads = ("Session", "Owner", "Age", "Idle", "Runs", "Memory", "Disk", "Processes", "Running cell")
    return _table(heads, cells, acts)


def _notes(notes: Sequence[Note]) -> str:
    if not notes:
        return "<p>None.</p>"
    return _table(
        ("When, UTC", "What", "Session", "Owner", "Detail"),
        [
            (f"{datetime.fromtimestamp(note.at, UTC):%H:%M:%S}", note.kind, note.session, note.owner, note.text[:300])
            for note in notes[:_SHOWN_NOTES]
        ],
    )


def _sandbox(executor: Executor) -> str:
    report = executor.sandbox
    level = f"<p>Level <b>{escape(report.level)}</b>, policy <b>{escape(executor.policy_level)}</b>.</p>"
    layers = [(name, "on" if layer.on else "off", layer.why) for name, layer in report.layers.items()]
    return level + _table(("Layer", "", "Why"), layers)


def _settings(values: Mapping[str, Any]) -> str:
    def words(value: Any) -> str:
        return ", ".join(value) if isinstance(value, tuple) else str(value)

    return _table(("Setting", "Value"), [(name.upper(), words(value)) for name, value in values.items()])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], acts: Sequence[str] = ()) -> str:
    """A table of texts; `acts` is HTML for a last cell of each row."""
    body = []
    for number, row in enumerate(rows):
        cells = "".join(f"<td>{escape(clean(str(cell)))}</td>" for cell in row)
        last = f'<td class="ci-acts">{acts[number]}</td>' if acts else ""
        body.append(f"<tr>{cells}{last}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in (*heads, *([""] if acts else [])))
    return (
        f'<div class="ci-wide"><table class="ci-table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def _duration(seconds: float) -> str:
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole} s"
    return f"{whole // 60} min" if whole < 7200 else f"{whole // 3600} h {whole % 3600 // 60} min"


def _seconds(value: float) -> str:
    return f"{value * 1000:.3g} ms" if value < 1 else f"{value:.3g} s"


def _count(value: float) -> str:
    return f"{value:,.4g}"
