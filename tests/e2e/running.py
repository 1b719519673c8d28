"""Starts the Space as a process of its own, as `make run` does, and talks to it with real MCP clients."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import psutil
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, ImageContent, TextContent

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
TRANSPORTS = ("sse", "http")


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


UNCAPPED = {"OWNER_CALLS_PER_MINUTE": "0"}
"""One user makes the calls of a whole module."""


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with `settings`; executing is allowed also where this machine's kernel is weak."""
    return {**os.environ, "ALLOW_WEAK_SANDBOX": "1", "MAX_SESSIONS": "60", "LOG_FORMAT": "json", **UNCAPPED, **settings}


@dataclass(kw_only=True)
class RunningSpace:
    """A Space that runs; `log` is the file of its output."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path
    ready_after: float

    @classmethod
    def start(
        cls,
        folder: Path,
        *,
        command: tuple[str, ...] = ("-m", "space.app"),
        cwd: Path = ROOT,
        until: int = 200,
        **settings: str,
    ) -> RunningSpace:
        """Start one and wait until `/healthz` is well; with `until=503`, only until it answers."""
        port = free_port()
        log = folder / f"space-{port}.log"
        began = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=cwd,
                env=environment(**{"PORT": str(port), "STATE_DIR": str(folder / f"state-{port}"), **settings}),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        space = cls(process=process, url=f"http://127.0.0.1:{port}", log=log, ready_after=0.0)
        # without the certificates, which take longer to read than all else here, and from the Space's own start
        with httpx.Client(verify=False, timeout=5) as http:
            while time.monotonic() - began < START_SECONDS:
                if process.poll() is not None:
                    raise AssertionError(f"the Space ended with {process.returncode}:\n{log.read_text()}")
                try:
                    if http.get(f"{space.url}/healthz").status_code in (200, until):
                        space.ready_after = time.monotonic() - began
                        return space
                except httpx.HTTPError:
                    pass
                time.sleep(0.05)
        space.stop()
        raise AssertionError(f"the Space was not ready within {START_SECONDS:g} s:\n{log.read_text()}")

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def descendants(self) -> list[psutil.Process]:
        """All processes below it: zygote, leaders, workers, and what those started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def running(self, marker: str) -> list[psutil.Process]:
        """The processes below it whose command line holds `marker`."""
        found = []
        for process in self.descendants():
            try:
                if any(marker in part for part in process.cmdline()):
                    found.append(process)
            except psutil.NoSuchProcess:
                continue
        return found


@asynccontextmanager
async def client(
    space: RunningSpace | str, transport: str, headers: Mapping[str, str] | None = None
) -> AsyncIterator[ClientSession]:
    """An initialized session of the Python SDK's client."""
    base = space if isinstance(space, str) else space.url
    sent = dict(headers or {})
    if transport == "sse":
        async with (
            sse_client(f"{base}/gradio_api/mcp/sse", headers=sent) as (read, write),
            ClientSession(read, write, read_timeout_seconds=timedelta(seconds=60)) as session,
        ):
            await session.initialize()
            yield session
    else:
        async with (
            httpx.AsyncClient(headers=sent, timeout=60) as http,
            streamable_http_client(f"{base}/gradio_api/mcp/", http_client=http) as (read, write, _),
            ClientSession(read, write, read_timeout_seconds=timedelta(seconds=60)) as session,
        ):
            await session.initialize()
            yield session


def identity(user: str, conversation: str) -> dict[str, str]:
    """The headers that LibreChat sends for a user in a conversation."""
    return {"X-User-Id": user, "X-Conversation-Id": conversation}


def text_of(result: CallToolResult) -> str:
    """All text of a result, blocks joined by a blank line as LibreChat does."""
    return "\n\n".join(block.text for block in result.content if isinstance(block, TextContent))


def pictures_of(result: CallToolResult) -> list[ImageContent]:
    """The pictures of a result."""
    return [block for block in result.content if isinstance(block, ImageContent)]


def data_of(result: CallToolResult) -> dict[str, Any]:
    """The structured content, which must be there."""
    assert result.structuredContent is not None, text_of(result)
    return result.structuredContent
