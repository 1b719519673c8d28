"""What a page is told that is opened while the executor starts."""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr
import pytest

from executor import Executor, Settings
from executor.events import Bus
from monitoring.history import History
from monitoring.live import Live
from monitoring.pseudonyms import Pseudonyms
from space.links import Links
from space.page import build_page

KEY = "0123456789abcdef" * 2
NOT_STARTED = "The interpreter is still starting. Reload the page in half a minute."


async def told(ready: asyncio.Event) -> list[tuple[Any, Any, str, Any]]:
    """What the page of an executor that never starts is told, one after the other."""
    settings = Settings()
    executor = Executor(settings, bus=Bus())
    with gr.Blocks() as page:
        build_page(
            page,
            executor,
            settings,
            links=Links(settings),
            history=History(Live(), Pseudonyms()),
            ready=ready,
        )
    opened = next(function.fn for function in page.fns.values() if function.name == "opened")
    assert opened is not None
    return [update async for update in opened("", KEY)]


async def test_a_start_that_takes_too_long_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("space.toolbox._START_SECONDS", 0.1)
    first, last = await told(asyncio.Event())
    assert "is starting" in first[2]
    assert last[0] is None and NOT_STARTED in last[2] and last[3].interactive is False


async def test_an_executor_that_is_not_there_is_told_in_a_sentence() -> None:
    ready = asyncio.Event()
    ready.set()
    (only,) = await told(ready)
    assert only[0] is None and NOT_STARTED in only[2] and only[3].interactive is False
