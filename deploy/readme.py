"""The Space's own README, for whoever opens it on the Hub."""

from __future__ import annotations

from deploy.config import Target
from deploy.hardware import about

_TEXT = """\
# {title}

Runs Python, JavaScript and bash for [LibreChat](https://www.librechat.ai) in live, sandboxed sessions. This repository
is made by `python -m deploy`: change the project and deploy again, since changes made here are overwritten.

- MCP over SSE: `/gradio_api/mcp/sse`, streamable HTTP: `/gradio_api/mcp/`
- health and build: `/healthz`, metrics: `/metrics`
- **keep this Space private**: whoever can reach it can run code on it

## What this hardware costs and how it sleeps

{hardware}
"""


def readme(target: Target) -> str:
    """The README's text below the front matter."""
    return _TEXT.format(title=target.title, hardware=about(target.hardware))
