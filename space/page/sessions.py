"""The session picker: which session a page works in, a new one, and the end of one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from executor import Executor, ExecutorError, NoSuchSession, SessionInfo
from space.content import clean, size_in_short
from space.page.outputs import status_line
from space.page.visitor import NOT_OPENED, Visitor

# no limit: a long cell of one visitor must not hold up another's, nor Stop wait behind Run
PRIVATE: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private"}
"""What all events of the page have in common."""
_SHOWN_NAMES = 3
_SHOWN_NAME = 30
_NONE_YET = "Session: the first run makes one"


@dataclass(frozen=True, slots=True)
class SessionBar:
    """The picker, a place for sentences, and the events of its buttons."""

    picker: gr.Dropdown
    notice: gr.HTML
    buttons: tuple[Any, ...]

    def on_choice(self, show: Callable[..., Any], inputs: list[Any], outputs: list[Any]) -> None:
        """Call `show` whenever the person chose, made or closed a session; not when a first run made one."""
        options: dict[str, Any] = {"show_progress": "hidden", **PRIVATE}
        self.picker.input(show, inputs, outputs, **options)
        for pressed in self.buttons:
            pressed.then(show, inputs, outputs, **options)


def session_bar(executor: Executor, visitor: gr.State) -> SessionBar:
    """The picker with its buttons, and a place for sentences."""
    notice = gr.HTML(elem_id="notice", js_on_load=None, apply_default_css=False)
    with gr.Row(elem_classes="ci-bar"):
        # any value is taken: the executor decides, and has better words for a session that a restart has ended
        picker = gr.Dropdown(
            [],
            value=None,
            label=_NONE_YET,
            allow_custom_value=True,
            elem_id="session",
            min_width=220,
            scale=4,
        )
        fresh = gr.Button("New session", size="sm", min_width=110, elem_id="new-session")
        close = gr.Button("Close session", size="sm", min_width=110, elem_id="close-session")

    async def new_session(visitor: Visitor | None) -> tuple[Any, Any, str]:
        if visitor is None:
            return gr.skip(), gr.skip(), status_line("bad", NOT_OPENED)
        try:
            made = await executor.create_session(**visitor.caller())
        except ExecutorError as error:
            return gr.skip(), gr.skip(), status_line("bad", sentence_of(error))
        visitor = visitor.with_session(made.id)
        return visitor, choices(executor, visitor, made.id), ""

    async def close_session(visitor: Visitor | None, chosen: str | None) -> tuple[Any, str]:
        if visitor is None:
            return gr.skip(), status_line("bad", NOT_OPENED)
        said = ""
        if chosen and visitor.may_reach(chosen):
            try:
                await executor.close_session(chosen, **visitor.caller())
                said = status_line("ok", "The session is closed; its variables and files are gone.")
            except ExecutorError as error:
                said = status_line("bad", sentence_of(error))
        return choices(executor, visitor, ""), said

    made = fresh.click(new_session, visitor, [visitor, picker, notice], show_progress="hidden", **PRIVATE)
    closed = close.click(close_session, [visitor, picker], [picker, notice], show_progress="hidden", **PRIVATE)
    return SessionBar(picker, notice, (made, closed))


def choices(executor: Executor, visitor: Visitor, wanted: str) -> Any:
    """An update of the picker with the sessions that there are; `wanted` is chosen if it lives, else the newest."""
    sessions = visitor.sessions(executor)
    if not sessions:
        return gr.Dropdown([], value=None, label=_NONE_YET)
    now = time.time()
    named = [(session_label(number, session, now), session.id) for number, session in enumerate(sessions, 1)]
    ids = [session.id for session in sessions]
    return gr.Dropdown(named, value=wanted if wanted in ids else ids[-1], label="Session")


def session_label(number: int, session: SessionInfo, now: float) -> str:
    """A session in the picker's words: its age, whether it is at work or parked, and what it takes then."""
    words = f"Session {number} · {_age(now - session.created_at)}"
    if session.running:
        return f"{words} · running"
    if session.state == "parked":
        named = f" · {_listed(session.names)}" if session.names else ""
        return f"{words} · parked, {size_in_short(session.snapshot_bytes)}{named}"
    return f"{words} · live"


def _age(seconds: float) -> str:
    minutes = max(0, int(seconds // 60))
    if minutes < 1:
        return "new"
    if minutes < 120:
        return f"{minutes} min old"
    return f"{minutes // 60} h old" if minutes < 48 * 60 else f"{minutes // 1440} days old"


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(clean(name)[:_SHOWN_NAME] for name in names[:_SHOWN_NAMES])
    return f"{shown} and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else shown


def sentence_of(error: ExecutorError) -> str:
    """The error's sentence for a person at the page; the executor's is written for a model."""
    if isinstance(error, NoSuchSession):
        return f"{str(error).partition(' Call again')[0]} Press New session for another."
    return str(error)
