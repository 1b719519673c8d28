"""The tab with the blocks to paste into LibreChat for this very address, and the self-test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from executor import Executor, Settings
from space.librechat import AuthHeader, Transport, env_block, yaml_block
from space.page.selftest import self_test
from space.page.sessions import PRIVATE

_NONE = "none"


def connect_tab(page: gr.Blocks, executor: Executor, settings: Settings) -> None:
    """`librechat.yaml` and `.env`, made anew with every choice, and a button that tries the three languages."""
    gr.Markdown(
        "Paste this into `librechat.yaml`, and what may stand below it into LibreChat's `.env`; then restart LibreChat."
    )
    with gr.Row():
        transport = gr.Radio([("SSE", "sse"), ("Streamable HTTP", "streamable-http")], value="sse", label="Transport")
        version = gr.Radio(["0.8.8", "0.8.7"], value="0.8.8", label="LibreChat, at least")
        auth = gr.Radio(
            [("Authorization", "Authorization"), ("X-HF-Authorization", "X-HF-Authorization"), ("not needed", _NONE)],
            value="Authorization" if settings.space_host else _NONE,
            label="Header for the Hugging Face token",
        )
    yaml = gr.Code(
        language="yaml", label="librechat.yaml", interactive=False, lines=5, buttons=["copy"], elem_id="yaml"
    )
    env = gr.Code(language="shell", label=".env", interactive=False, lines=2, buttons=["copy"], elem_id="env")
    gr.Markdown("Does it work? The self-test runs the three languages in a session of its own.")
    test = gr.Button("Run the self-test", elem_id="self-test")
    tested = gr.HTML(elem_id="tested", js_on_load=None, apply_default_css=False)

    async def blocks(transport: Transport, version: str, auth: str, request: gr.Request) -> tuple[str, Any]:
        header: AuthHeader | None = None if auth == _NONE else auth  # type: ignore[assignment]
        key = bool(settings.access_key)
        address = space_address(settings, request.headers)
        block = yaml_block(address, transport=transport, version=version, auth_header=header, access_key=key)
        lines = env_block(auth_header=header, access_key=key)
        return block, gr.Code(lines, visible=bool(lines))

    async def run_test() -> AsyncIterator[str]:
        async for table in self_test(executor):
            yield table

    test.click(run_test, None, tested, show_progress="minimal", trigger_mode="once", **PRIVATE)
    options: dict[str, Any] = {
        **PRIVATE,
        "show_progress": "hidden",
        "inputs": [transport, version, auth],
        "outputs": [yaml, env],
    }
    for choice in (transport, version, auth):
        choice.change(blocks, **options)
    page.load(blocks, **options)


def space_address(settings: Settings, headers: Any) -> str:
    """The address that LibreChat reaches this Space under: as set, else as Hugging Face says, else as it was called."""
    if settings.space_host:
        return f"https://{settings.space_host}"
    if settings.public_base_url:
        return settings.public_base_url
    scheme = headers.get("x-forwarded-proto", "http").split(",")[0].strip()
    return f"{'https' if scheme == 'https' else 'http'}://{headers.get('host', 'localhost')}"
