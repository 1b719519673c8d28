"""The tab that runs code: editor, Run, Stop, and what comes back."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gradio as gr

from executor import Executor, ExecutorError, Settings
from executor.results import Variable
from space.links import Links
from space.page import execution
from space.page.examples import EXAMPLES
from space.page.execution import Progress
from space.page.outputs import (
    all_variables,
    changed_variables,
    displays,
    finished_screen,
    new_files,
    running_screen,
    status_line,
)
from space.page.sessions import PRIVATE, choices, sentence_of
from space.page.visitor import NOT_OPENED, Visitor
from space.variables import known_variables

_EDITOR: dict[str, Literal["python", "javascript", "shell"]] = {
    "python": "python",
    "javascript": "javascript",
    "bash": "shell",
}
_FIRST = "print('hello')"

Update = tuple[Any, Any, Any]
"""Screen, displays, session picker."""


@dataclass(frozen=True, slots=True)
class RunTab:
    """The parts of the tab that others act on."""

    language: gr.Radio
    code: gr.Code
    button: gr.Button
    """Not to be pressed before the page has its visitor."""
    run: Any
    """Runs what is in the editor: the function, its inputs and outputs as Gradio's events take them."""
    resume: Any
    """Follows what the page's session runs already; the same form."""


def run_tab(executor: Executor, settings: Settings, links: Links, visitor: gr.State, session: gr.Dropdown) -> RunTab:
    """Editor, buttons, screen and examples; needs the page's visitor and its session picker."""
    with gr.Row(elem_classes="ci-bar"):
        language = gr.Radio(
            [("Python", "python"), ("JavaScript", "javascript"), ("bash", "bash")],
            value="python",
            label="Language",
            show_label=False,
            container=False,
            min_width=260,
        )
        timeout = gr.Number(
            value=settings.execution_timeout,
            minimum=1,
            maximum=settings.max_execution_timeout,
            label="Time limit (s)",
            min_width=120,
            scale=0,
            elem_classes="ci-timeout",
        )
    code = gr.Code(_FIRST, language="python", lines=10, max_lines=30, label="Code (Ctrl+Enter runs it)", elem_id="code")
    with gr.Row(elem_classes="ci-bar"):
        run = gr.Button("Run", variant="primary", elem_id="run", min_width=90, interactive=False)
        stop = gr.Button("Stop", variant="stop", elem_id="stop", min_width=90)
    screen = gr.HTML(elem_id="screen", js_on_load=None, apply_default_css=False)
    shown = gr.HTML(elem_id="shown", js_on_load=None, apply_default_css=False)
    gr.Examples(
        [[language_, code_] for _, language_, code_ in EXAMPLES],
        inputs=[language, code],
        cache_examples=False,
        example_labels=[title for title, _, _ in EXAMPLES],
        label="Examples",
    )

    async def show(progress: Progress, visitor: Visitor, session_id: str, last: int) -> tuple[str, Any]:
        def link(path: str) -> str:
            return links.file(visitor.grant(session_id), path)

        result = progress.result
        if result is None:
            rich = displays(progress.outputs, link, key="live") if len(progress.outputs) != last else gr.skip()
            return running_screen(progress.printed), rich
        drawn = {output.picture.path for output in result.outputs if output.picture}
        files = new_files([file for file in result.files if file.path not in drawn], link)
        rich = displays(result.outputs, link, key=result.execution_id)
        known: Sequence[Variable] = ()
        with contextlib.suppress(ExecutorError):  # the session may have ended with its last cell
            known = known_variables(await executor.history(session_id, **visitor.caller()))
        told = changed_variables(result.variables) + all_variables(known)
        return finished_screen(result), files + rich + told

    async def run_code(
        visitor: Visitor | None, chosen: str | None, language: str, code: str, timeout: float | None
    ) -> AsyncIterator[Update]:
        if visitor is None:
            yield status_line("bad", NOT_OPENED), "", gr.skip()
            return
        try:
            session_id = await execution.session_of(executor, visitor, chosen or "")
            yield running_screen(()), "", choices(executor, visitor, session_id) if not chosen else gr.skip()
            last = 0
            async for progress in execution.run(
                executor, visitor, session_id, code=code, language=language, timeout=timeout or None
            ):
                yield *await show(progress, visitor, session_id, last), gr.skip()
                last = len(progress.outputs)
        except ExecutorError as error:
            yield status_line("bad", sentence_of(error)), "", choices(executor, visitor, chosen or "")

    async def resume(visitor: Visitor | None, chosen: str | None) -> AsyncIterator[Update]:
        """A page that is opened, or reloaded, while code runs in its session shows that."""
        yield (gr.skip(),) * 3  # a generator without a value would empty what it may change
        if visitor is None or not chosen or not visitor.may_reach(chosen):
            return
        try:
            running = executor.session(chosen, **visitor.caller()).running
            if running is None:
                return
            yield running_screen(()), "", gr.skip()
            last = 0
            async for progress in execution.follow(executor, visitor, chosen, running):
                yield *await show(progress, visitor, chosen, last), gr.skip()
                last = len(progress.outputs)
        except ExecutorError as error:
            yield status_line("bad", sentence_of(error)), "", gr.skip()

    async def stop_code(visitor: Visitor | None, chosen: str | None) -> None:
        if visitor is None:
            raise gr.Error(NOT_OPENED, print_exception=False)
        stopped = False
        for mine in visitor.sessions(executor):
            # also where nothing runs yet: code that waits until its session has been saved is to be stopped, too
            if chosen in (mine.id, None):
                stopped |= await executor.interrupt(session_id=mine.id, **visitor.caller())
        if not stopped:
            gr.Info("Nothing is running.")

    running: dict[str, Any] = {
        "fn": run_code,
        "inputs": [visitor, session, language, code, timeout],
        "outputs": [screen, shown, session],
        "show_progress": "hidden",
        **PRIVATE,
    }
    run.click(trigger_mode="once", **running)
    stop.click(stop_code, [visitor, session], None, show_progress="hidden", **PRIVATE)
    language.change(_editor, language, code, show_progress="hidden", **PRIVATE)
    resuming = {**running, "fn": resume, "inputs": [visitor, session]}
    return RunTab(language, code, run, running, resuming)


async def _editor(language: str) -> Any:
    return gr.Code(language=_EDITOR[language])
