"""The tab that runs code in a session of its own."""

from __future__ import annotations

import base64
import html
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import gradio as gr

from executor import Executor, ExecutorError, Finished, OutputChunk, Picture
from executor.events import ToolCalled, during
from executor.results import ExecutionResult
from space.content import PICTURE_TYPES, execution_answer
from space.identity import PAGE_PREFIX

_CONVERSATION = "page"
_EVERY = 0.1  # seconds between two updates of the page while output streams
_SHOWN_CHARS = 20_000
_TEXT_BUDGET = 100_000
_FULL_SIZE_BYTES = 5_000_000
_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".svg": "image/svg+xml"}
_EDITOR: dict[str, Literal["python", "javascript", "shell"]] = {
    "python": "python",
    "javascript": "javascript",
    "bash": "shell",
}
_TOOL = {
    "python": "execute_python_code",
    "javascript": "execute_javascript_code",
    "bash": "execute_bash_command",
}
_EXAMPLES = [
    [
        "python",
        "t = np.linspace(0, 2 * np.pi, 400)\nplt.plot(t, np.sin(t), label='sin')\n"
        "plt.plot(t, np.cos(t), label='cos')\nplt.legend()",
    ],
    ["python", "df = pd.DataFrame({'city': ['Oslo', 'Rome', 'Cairo'], 'degrees': [6, 16, 22]})\ndf.describe()"],
    ["javascript", "const squares = Array.from({ length: 10 }, (_, n) => n * n)\nsquares"],
    ["bash", 'for n in 1 2 3; do echo "line $n" >> notes.txt; done\nwc -l notes.txt'],
]

Update = tuple[str, str, str, str]
"""Output, pictures as HTML, session id, owner."""


def run_tab(executor: Executor) -> None:
    """Code, language, Run, Stop, output and pictures. Every page that is opened has an owner of its own."""
    owner = gr.State("")
    with gr.Row():
        language = gr.Radio(
            [("Python", "python"), ("JavaScript", "javascript"), ("bash", "bash")], value="python", label="Language"
        )
        session = gr.Textbox(label="Session", interactive=False, placeholder="made by the first run")
    code = gr.Code("print('hello')", language="python", lines=10, label="Code")
    with gr.Row():
        run = gr.Button("Run", variant="primary")
        stop = gr.Button("Stop", variant="stop")
        fresh = gr.Button("New session")
    text = gr.Textbox(label="Output", lines=8, max_lines=30, interactive=False, elem_classes="output")
    pictures = gr.HTML(elem_classes="pictures")
    gr.Examples(_EXAMPLES, inputs=[language, code], cache_examples=False)

    async def run_code(language: str, code: str, owner: str) -> AsyncIterator[Update]:
        owner = owner or _new_owner()
        try:
            session_id = (await executor.session_for(owner=owner, conversation=_CONVERSATION)).id
            yield "", "", session_id, owner
            async for text, result in _follow(executor, code, language, owner, session_id):
                if result is None:
                    yield text, "", session_id, owner
                else:
                    shown = execution_answer(result, budget=_TEXT_BUDGET)
                    yield shown.texts[0], await _gallery(executor, result, owner), session_id, owner
        except ExecutorError as error:
            yield f"Error: {error}", "", "", owner

    async def stop_code(owner: str, session_id: str) -> None:
        stopped = False
        if session_id:
            try:
                stopped = await executor.interrupt(session_id=session_id, owner=owner, conversation=_CONVERSATION)
            except ExecutorError as error:
                raise gr.Error(str(error)) from None
        if not stopped:
            gr.Info("Nothing is running.")

    async def new_session(owner: str, session_id: str) -> Update:
        if session_id:
            try:
                await executor.close_session(session_id, owner=owner, conversation=_CONVERSATION)
            except ExecutorError as error:
                return f"{error}", "", "", owner
        return "", "", "", owner

    outputs = [text, pictures, session, owner]
    # no limit: a long cell of one visitor must not hold up another's, nor Stop wait behind Run
    options: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private"}
    run.click(run_code, [language, code, owner], outputs, show_progress="minimal", trigger_mode="once", **options)
    stop.click(stop_code, [owner, session], None, show_progress="hidden", **options)
    fresh.click(new_session, [owner, session], outputs, show_progress="hidden", **options)
    language.change(_editor, language, code, show_progress="hidden", **options)


def _new_owner() -> str:
    return PAGE_PREFIX + secrets.token_urlsafe(16)


async def _editor(language: str) -> Any:
    return gr.Code(language=_EDITOR[language])


async def _follow(
    executor: Executor, code: str, language: str, owner: str, session_id: str
) -> AsyncIterator[tuple[str, ExecutionResult | None]]:
    """What was printed so far, again and again, and at last the result. Going away interrupts the code."""
    request_id, began, tool = secrets.token_hex(8), time.perf_counter(), _TOOL.get(language, "unknown")
    outcome: Literal["ok", "error", "cancelled"] = "cancelled"
    result: ExecutionResult | None = None
    caller: dict[str, Any] = {"owner": owner, "conversation": _CONVERSATION, "session_id": session_id}
    try:
        # only here and not round the whole: every step of a generator may run in another context
        with during(request_id, tool):
            _, execution_id = await executor.start_execution(code, language=language, **caller)
        printed, shown_at = "", 0.0
        try:
            async for event in executor.attach(execution_id, **caller):
                if isinstance(event, Finished):
                    result = event.result
                elif isinstance(event, OutputChunk):
                    printed = (printed + event.text)[-_SHOWN_CHARS:]
                    if time.monotonic() - shown_at > _EVERY:
                        shown_at = time.monotonic()
                        yield printed, None
        finally:
            if result is None:
                await executor.interrupt(execution_id=execution_id, **caller)
        if result is not None:
            outcome = "ok" if result.success else "error"
            yield printed, result
    except ExecutorError:
        outcome = "error"
        raise
    finally:
        executor.bus.publish(
            ToolCalled(
                tool=tool,
                request_id=request_id,
                transport="page",
                outcome=outcome,
                owner=owner,
                identified=True,
                session_id=session_id,
                seconds=time.perf_counter() - began,
            )
        )


async def _gallery(executor: Executor, result: ExecutionResult, owner: str) -> str:
    """The pictures as HTML, full size where the file is not too large. An `<img>` runs no script, not even an SVG's."""
    tags = []
    for output in result.outputs:
        if (picture := output.picture) is None:
            continue
        source = await _full_size(executor, result.session_id, picture, owner)
        if source is None and picture.mime in PICTURE_TYPES:
            source = f"data:{picture.mime};base64,{picture.data}"
        if source is not None:
            alt = html.escape(picture.alt or picture.path or "picture", quote=True)
            tags.append(f'<img src="{html.escape(source, quote=True)}" alt="{alt}">')
    return "".join(tags)


async def _full_size(executor: Executor, session_id: str, picture: Picture, owner: str) -> str | None:
    path = picture.path or ""
    mime = _TYPES.get(path[path.rfind(".") :].lower())
    if mime is None:
        return None
    data = b""
    try:
        async for chunk in executor.get_file(
            session_id, path, owner=owner, conversation=_CONVERSATION, length=_FULL_SIZE_BYTES + 1
        ):
            data += chunk
    except ExecutorError:
        return None  # the code may have deleted it; the small one is still there
    return None if len(data) > _FULL_SIZE_BYTES else f"data:{mime};base64,{base64.b64encode(data).decode()}"
