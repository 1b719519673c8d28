"""Connections: there may be many, one too many hears so, and a client that does not read is let go of."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import uvicorn
from gradio.route_utils import GradioMultiPartParser
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from executor import Executor
from executor.events import AccessRefused, Bus, Event
from executor.settings import Settings
from space import connections
from space.connections import GIVEN_UP_SECONDS, let_go_of_the_deaf, raise_descriptor_limit
from space.mcp import ROOT, Endpoint
from space.page_uploads import forget_broken_uploads
from space.toolbox import Toolbox
from space.tools import tool_table

HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}


class Site:
    """The endpoint behind a real server on loopback."""

    def __init__(self, port: int, endpoint: Endpoint, heard: list[Event]) -> None:
        self.port = port
        self.endpoint = endpoint
        self.heard = heard
        self.open = endpoint._connections

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A client of HTTP by hand, which reads only what it is told to and whose buffers are small."""
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=4096)
        writer.write(f"GET {ROOT}/sse HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return reader, writer

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not true():
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def served(**settings: Any) -> AsyncIterator[Site]:
    made = Settings(**settings)
    bus, heard = Bus(linger=0), list[Event]()
    unsubscribe = bus.subscribe(heard.append)
    endpoint = Endpoint(
        Toolbox(Executor(made, bus=bus), made, bus, tool_table(made)), bus, version="1", single_user=False
    )
    server = uvicorn.Server(
        uvicorn.Config(Starlette(routes=endpoint.routes()), host="127.0.0.1", port=0, log_level="critical")
    )
    serving = asyncio.create_task(server.serve())
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        async with endpoint.running():
            yield Site(server.servers[0].sockets[0].getsockname()[1], endpoint, heard)
            bus.flush()
    finally:
        server.should_exit = server.force_exit = True
        await serving
        unsubscribe()


async def endpoint_of(reader: asyncio.StreamReader) -> str:
    """The path for messages, which is the first thing that comes."""
    async with asyncio.timeout(10):
        while not (line := await reader.readline()).startswith(b"data: "):
            assert line, "the server closed the connection"
    return line.decode().removeprefix("data: ").strip()


async def test_one_connection_too_many_hears_so_and_gets_in_when_another_one_left() -> None:
    async with served(max_connections=2) as site:
        kept = [await site.connect() for _ in range(2)]
        for reader, _ in kept:
            await endpoint_of(reader)
        async with httpx.AsyncClient() as http:
            answer = await http.get(f"http://127.0.0.1:{site.port}{ROOT}/sse")
        assert answer.status_code == 503 and answer.headers["retry-after"] == "30"
        assert "2 connections are open" in answer.json()["error"]
        kept[0][1].close()
        await site.until(lambda: len(site.open) == 1)
        reader, writer = await site.connect()
        assert await endpoint_of(reader)
        writer.close()
        kept[1][1].close()
        await site.until(lambda: len(site.open) == 0)
    assert [event.reason for event in site.heard if isinstance(event, AccessRefused)] == ["full"]


@pytest.mark.parametrize(
    ("limit", "seconds", "why"),
    [(500_000, 60.0, "waited to be read"), (1 << 30, 0.5, "read nothing for")],
    ids=["too much waits", "too long"],
)
async def test_a_client_that_does_not_read_is_dropped_with_a_line_and_others_are_not(
    limit: int, seconds: float, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connections, "MAX_WAITING_BYTES", limit)
    monkeypatch.setattr(connections, "SEND_SECONDS", seconds)
    async with served() as site:
        reader, writer = await site.connect()
        deaf = await endpoint_of(reader)
        other_reader, other_writer = await site.connect()
        other = await endpoint_of(other_reader)
        base = f"http://127.0.0.1:{site.port}"
        with caplog.at_level(logging.WARNING, "space.connections"):
            async with httpx.AsyncClient(base_url=base, timeout=20) as http:
                for path in (deaf, other):
                    await http.post(path, json=HELLO)
                    await http.post(path, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
                for number in range(1, 3000):
                    if len(site.open) < 2:
                        break
                    ask = {"jsonrpc": "2.0", "id": number, "method": "tools/list"}
                    # a post to somebody who is full waits, so it must not be waited for
                    with contextlib.suppress(httpx.HTTPError):
                        await http.post(deaf, json=ask, timeout=5)
                await site.until(lambda: len(site.open) == 1)
                await http.post(other, json={"jsonrpc": "2.0", "id": 9, "method": "ping"})
        async with asyncio.timeout(10):
            while b'"id":9' not in (line := await other_reader.readline()):
                assert line
        assert json.loads(line.decode().removeprefix("data: "))["result"] == {}
        [record] = [record for record in caplog.records if record.name == "space.connections"]
        assert why in record.getMessage()
        writer.close()
        other_writer.close()
        await site.until(lambda: len(site.open) == 0)


async def test_several_hundred_connections_are_held_at_once_and_leave_nothing() -> None:
    async with served() as site:
        reader, writer = await site.connect()  # the first one starts what the library keeps for all
        await endpoint_of(reader)
        writer.close()
        await site.until(lambda: len(site.open) == 0)
        before = len(asyncio.all_tasks())
        many = await asyncio.gather(*(site.connect() for _ in range(400)))
        paths = await asyncio.gather(*(endpoint_of(reader) for reader, _ in many))
        assert len(set(paths)) == len(site.open) == 400
        for _, writer in many:
            writer.close()
        await site.until(lambda: len(site.open) == 0)
        await site.until(lambda: len(asyncio.all_tasks()) <= before)


def test_the_limit_of_descriptors_is_raised_to_what_may_be() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    try:
        assert raise_descriptor_limit() == hard == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_connections_that_are_accepted_inherit_the_patience_of_the_listener() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        let_go_of_the_deaf([listener])
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            patience = accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert patience == GIVEN_UP_SECONDS * 1000


async def test_a_form_that_breaks_off_in_the_middle_leaves_no_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    forget_broken_uploads()
    folder = tmp_path_factory.mktemp("gradio")

    async def half_a_form() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.csv"\r\n\r\n' + b"x" * 100_000
        assert len(list(folder.iterdir())) <= 1
        yield b"y" * 100_000
        assert len(list(folder.iterdir())) == 1, "the parser writes as it reads"
        raise ClientDisconnect

    parser = GradioMultiPartParser(
        Headers({"content-type": "multipart/form-data; boundary=b"}),
        half_a_form(),  # type: ignore[arg-type]
        upload_dir=folder,
        max_file_size=10**9,
    )
    with pytest.raises(ClientDisconnect):
        await parser.parse()
    assert list(folder.iterdir()) == []
