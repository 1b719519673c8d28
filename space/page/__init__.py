"""The Gradio page, a module a tab."""

from __future__ import annotations

import gradio as gr

from executor import Executor, Settings
from space.page.connect import connect_tab
from space.page.run import run_tab

CSS = """
.output textarea { font-family: var(--font-mono); }
.pictures img { max-width: 100%; height: auto; margin: 0.5rem 0; background: #fff; }
"""


def build_page(page: gr.Blocks, executor: Executor, settings: Settings) -> None:
    """Put the tabs into `page`, which must be the Blocks that are open."""
    gr.Markdown("# Code interpreter\nPython, JavaScript and bash in a live session of your own.")
    with gr.Tabs():
        with gr.Tab("Run"):
            run_tab(executor)
        with gr.Tab("Connect"):
            connect_tab(page, settings)
