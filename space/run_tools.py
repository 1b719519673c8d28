"""Runs code for a caller who will not wait for ever: the answer at its end, or `running` and a tool to ask again."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from executor import Settings
from executor.errors import ExecutorError
from executor.results import ExecutionResult, Language
from space import apps, progress, schemas
from space.content import Answer, execution_answer
from space.downloads import downloads_of
from space.identity import Caller
from space.toolbox import READS, SESSION_ID, Arguments, Tool, Toolbox, session_note
from space.views import CLIENT_CHARS, CLIENT_PREFACE, download_card

_PROGRESS_EVERY = 1.0
_KEEP_ALIVE = 5.0
"""Seconds after which a report goes out also without news: clients may count their timeout from the last one."""
_LINE_CHARS = 200
_LINES = re.compile(r"[\r\n]+")


async def execute(box: Toolbox, caller: Caller, code: str, language: Language, values: Arguments) -> Answer:
    """Run code; cancelling interrupts it, until the answer was `running`."""
    named = values["session_id"]
    session_id, execution_id = await box.executor.start_execution(
        code,
        language=language,
        owner=caller.owner,
        conversation=caller.conversation,
        session_id=named,
        timeout=values["timeout"],
    )
    try:
        result = await _wait(box, caller, session_id, execution_id, box.settings.soft_wait)
    except asyncio.CancelledError:
        with contextlib.suppress(ExecutorError):
            await box.executor.interrupt(
                session_id=session_id, owner=caller.owner, conversation=caller.conversation, execution_id=execution_id
            )
        raise
    return _answer(box, caller, result, session_note(caller, named))


async def get_execution_result(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    session_id = await box.session_id(caller, values["session_id"])
    result = await _wait(box, caller, session_id, values["execution_id"], values["wait"])
    return _answer(box, caller, result)


def run_tools(settings: Settings) -> tuple[Tool, ...]:
    """The tools for code that runs long."""
    longest = settings.soft_wait
    return (
        Tool(
            name="get_execution_result",
            title="Wait for code",
            description="Wait for code that was still running: its result, or its output so far.",
            properties={
                "session_id": SESSION_ID,
                "execution_id": {"type": "string", "description": "Default: what runs, or ran last."},
                "wait": {
                    "type": "number",
                    "description": "Seconds.",
                    "minimum": 0,
                    "maximum": longest,
                    "default": longest,
                },
            },
            output=schemas.EXECUTION,
            run=get_execution_result,
            hints=READS,
            shown=True,
        ),
    )


async def _wait(
    box: Toolbox, caller: Caller, session_id: str, execution_id: str | None, patience: float
) -> ExecutionResult:
    async with _reporting(box, caller, session_id, execution_id):
        return await box.executor.wait(
            session_id=session_id,
            owner=caller.owner,
            conversation=caller.conversation,
            execution_id=execution_id,
            patience=patience,
        )


def _answer(box: Toolbox, caller: Caller, result: ExecutionResult, note: str = "") -> Answer:
    grant = box.grant(caller, result.session_id)
    links = downloads_of(box.links, grant, result, room=box.settings.max_result_chars // 4)
    budget = box.settings.max_result_chars - links.chars
    ui, app = box.settings.ui_resources, apps.shown_by_client()
    card = None
    if ui == "all" and links.addresses and not app:  # an app makes its own of the same addresses
        sizes = {file.path: file.size for file in result.files}
        card = download_card(links.addresses, sizes, execution_id=result.execution_id)
        cost = len(card.html) + CLIENT_CHARS + CLIENT_PREFACE
        if cost < budget // 4:
            budget -= cost
        else:
            card = None
    answer = execution_answer(result, budget=budget, session_note=note, ui=ui, app=app)
    answer = links.put_into(answer)
    return answer if card is None else replace(answer, views=(*answer.views, card))


@contextlib.asynccontextmanager
async def _reporting(box: Toolbox, caller: Caller, session_id: str, execution_id: str | None) -> AsyncIterator[None]:
    if not progress.wanted():
        yield
        return
    task = asyncio.create_task(_report(box, caller, session_id, execution_id), name="progress")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _report(box: Toolbox, caller: Caller, session_id: str, execution_id: str | None) -> None:
    """Tell the client the newest line of output, as often as there is one."""
    began = told_at = time.monotonic()
    line = "running"
    seen = ("", "")
    with contextlib.suppress(ExecutorError):  # then the call itself gets the same error
        while True:
            await asyncio.sleep(_PROGRESS_EVERY)
            result = await box.executor.so_far(
                session_id=session_id, owner=caller.owner, conversation=caller.conversation, execution_id=execution_id
            )
            now = (result.stdout, result.stderr)
            news = next((text for text, old in zip(now, seen, strict=True) if text != old), None)
            seen = now
            if news is not None:
                line = newest_line(news) or line
            elif time.monotonic() - told_at < _KEEP_ALIVE:
                continue
            told_at = time.monotonic()
            await progress.report(round(told_at - began, 1), line)


def newest_line(text: str) -> str:
    """The last line that is not blank; a carriage return begins one, too, as progress bars use it."""
    lines = [line for line in _LINES.split(text[-4 * _LINE_CHARS :]) if line.strip()]
    return lines[-1].strip()[-_LINE_CHARS:] if lines else ""
