"""The Space as a whole: executor, endpoint, monitoring and page, brought up and down by Gradio's own launch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

import gradio as gr
from starlette.middleware import Middleware

import monitoring
from executor import Executor, Settings
from executor.backend import Backend
from executor.errors import ExecutorError
from space.access import HostCheck, KeyCheck
from space.build import SOURCE, build_id
from space.connections import let_go_of_the_deaf, outlast_clients, raise_descriptor_limit
from space.health import health_route
from space.mcp import Endpoint
from space.page import CSS, HEAD, build_page, theme
from space.page_uploads import forget_broken_uploads
from space.toolbox import Tool, Toolbox
from space.transfer_routes import transfer_routes
from space.upkeep import give_back_when_idle, set_start_apart

_log = logging.getLogger(__name__)

_SERVED_WITHOUT = 3.0
"""Seconds that the server waits for the executor; Gradio's launch gives up on a server that needs over 5."""
_CLOSE_SECONDS = 20.0
_UPLOADS_KEPT = (600, 1800)
"""Seconds between two looks for files that Gradio took in and nobody fetched, and how old they may become."""


class Space:
    """Everything behind the page. `page()` gives what `launch()` starts; it may be launched once."""

    def __init__(self, settings: Settings, backend: Backend, tools: Mapping[str, Tool]) -> None:
        self.settings = settings
        self._handler = monitoring.configure(settings)
        self.executor = Executor(settings, backend=backend)
        # a checkout has no build to name; monitoring knows the version of one that is installed
        build = "" if build_id() == SOURCE else build_id()
        self._monitoring = monitoring.subscribe(self.executor.bus, settings, self._handler, build=build)
        self.toolbox = Toolbox(self.executor, settings, self.executor.bus, tools)
        self._endpoint = Endpoint(self.toolbox, self.executor.bus, version=build_id(), single_user=settings.single_user)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = threading.Event()
        self._failure = ""

    def page(self) -> SpaceBlocks:
        """The Gradio page, ready to be launched."""
        page = SpaceBlocks(title="Code interpreter", analytics_enabled=False, delete_cache=_UPLOADS_KEPT)
        page.space = self
        with page:
            build_page(
                page,
                self.executor,
                self.settings,
                links=self.toolbox.links,
                history=self._monitoring.history,
                ready=self.toolbox.ready,
            )
        return page

    def launch_arguments(self) -> dict[str, Any]:
        """What Gradio's `launch` must be given for our routes to be there and nothing else to be."""
        raise_descriptor_limit()  # now, and not before the zygote was started, which inherits it
        forget_broken_uploads()
        bus = self.executor.bus
        middleware = [Middleware(HostCheck, settings=self.settings, bus=bus)]
        if self.settings.access_key:
            middleware.append(Middleware(KeyCheck, key=self.settings.access_key, bus=bus, links=self.toolbox.links))
        routes = [
            *self._endpoint.routes(),
            *transfer_routes(self.executor, self.toolbox.links, self.settings, bus),
            health_route(self.toolbox),
            *self._monitoring.routes,
        ]
        return {
            "server_name": self.settings.bind_host,
            "server_port": self.settings.port or _free_port(self.settings.bind_host),
            "ssr_mode": False,  # Node's proxy would take the port and forward only Gradio's own routes
            "mcp_server": False,
            "share": False,
            "quiet": True,
            "enable_monitoring": False,
            "footer_links": [],
            "css": CSS,
            "head": HEAD,
            "theme": theme(),
            "max_file_size": self.settings.max_upload_mb << 20,
            "app_kwargs": {
                "routes": routes,
                "middleware": middleware,
                "lifespan": self._lifespan,
                "docs_url": None,
                "redoc_url": None,
                "openapi_url": None,
            },
        }

    def heed_signals(self) -> None:
        """Have SIGTERM and SIGINT end it cleanly, from before the first request on: somebody may stop what has just
        begun to answer."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self._stop.set())

    def serve_until_stopped(self) -> int:
        """Block until a signal or a failed start, then end everything. Returns the exit code."""
        self._stop.wait()
        if self._loop is not None and self._loop.is_running():
            closing = asyncio.run_coroutine_threadsafe(self.aclose(), self._loop)
            with contextlib.suppress(TimeoutError):
                closing.result(_CLOSE_SECONDS)
        if self._failure:
            sys.stderr.write(f"{self._failure}\n")
        return 1 if self._failure else 0

    async def aclose(self) -> None:
        """End calls, connections and sessions. Idempotent."""
        await self._endpoint.aclose()
        await self.executor.aclose()

    @contextlib.asynccontextmanager
    async def _lifespan(self, app: object) -> AsyncIterator[None]:
        self._loop = asyncio.get_running_loop()
        async with self._monitoring.running(measure=self.executor.measure), self._endpoint.running():
            starting = asyncio.create_task(self._start(), name="executor-start")
            upkeep = asyncio.create_task(give_back_when_idle(self.executor.bus), name="upkeep")
            try:
                await asyncio.wait({starting}, timeout=_SERVED_WITHOUT)
                yield
            finally:
                upkeep.cancel()
                starting.cancel()
                await self.aclose()

    async def _start(self) -> None:
        try:
            await self.executor.start()
        except ExecutorError as error:
            self._failure = str(error)
            self._stop.set()
            return
        self.toolbox.ready.set()


class SpaceBlocks(gr.Blocks):
    """Blocks whose `launch` brings up the whole Space, whoever calls it and with whatever arguments."""

    space: Space

    def launch(self, *, prevent_thread_lock: bool = False, **others: Any) -> Any:  # type: ignore[override]
        """Gradio's `launch` with our arguments, unless the caller names others; blocks until the Space is stopped."""
        ours = self.space.launch_arguments()
        ours["app_kwargs"] = {**(others.pop("app_kwargs", None) or {}), **ours["app_kwargs"]}
        if not prevent_thread_lock:
            self.space.heed_signals()
        launched = super().launch(prevent_thread_lock=True, **{**ours, **others})
        let_go_of_the_deaf(listener for server in self.server.servers for listener in server.sockets)
        outlast_clients(self.server.config)
        set_start_apart()
        _log.info("Serving on %s", self.local_url)
        if prevent_thread_lock:
            return launched
        code = self.space.serve_until_stopped()
        self.close(verbose=False)
        if code:
            raise SystemExit(code)
        return launched


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
