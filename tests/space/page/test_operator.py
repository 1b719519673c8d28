"""The operator's tab: there only with a key, and charts that can be read."""

from __future__ import annotations

import asyncio

import gradio as gr
import pytest

from executor import Executor, Settings
from executor.events import Bus
from monitoring.history import History
from monitoring.live import Live
from monitoring.pseudonyms import Pseudonyms
from space.links import Links
from space.page import build_page
from space.page.charts import line_chart


def page_of(**values: object) -> gr.Blocks:
    settings = Settings(**values)  # type: ignore[arg-type]
    with gr.Blocks() as page:
        build_page(
            page,
            Executor(settings, bus=Bus()),
            settings,
            links=Links(settings),
            history=History(Live(), Pseudonyms()),
            ready=asyncio.Event(),
        )
    return page


def built(**values: object) -> str:
    return str(page_of(**values).get_config_file())


def test_without_a_key_there_is_no_tab_and_no_function_behind_it() -> None:
    config = built()
    assert "admin" not in config and "Operator" not in config
    config = built(admin_key="very-secret-key", access_key="another-secret")
    assert "Operator" in config
    assert "very-secret-key" not in config and "another-secret" not in config


def test_no_function_of_the_page_is_offered_as_an_api() -> None:
    listed = page_of(admin_key="k").get_api_info()
    assert listed["named_endpoints"] == {} and listed["unnamed_endpoints"] == {}


def test_a_chart_draws_lines_with_gaps_between_them() -> None:
    points = [(0.0, 1.0), (10.0, 2.0), (20.0, None), (30.0, 3.0)]
    drawn = line_chart("<Title>", {"a": points}, words=lambda value: f"{value:g}")
    assert drawn.count("<polyline") == 1 and drawn.count("<circle") == 1
    assert "&lt;Title&gt;" in drawn and "<Title>" not in drawn


@pytest.mark.parametrize(
    ("highest", "top"), [(0, "1"), (0.0007, "0.001"), (0.13, "0.2"), (1, "1"), (7, "10"), (43, "50"), (5200, "10000")]
)
def test_an_axis_ends_at_a_round_number_that_is_not_too_far(highest: float, top: str) -> None:
    drawn = line_chart("t", {"a": [(0.0, highest)]}, words=lambda value: f"[{value:g}]")
    assert f"[{top}]" in drawn


def test_an_hour_without_anything_is_an_empty_chart() -> None:
    assert "<svg" in line_chart("t", {"a": []}, words=str)
