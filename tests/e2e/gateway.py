"""Plays the proxy in front of a private Space: 404 without the token, everything passed through unbuffered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.e2e.running import free_port

TOKEN = "hf_read_only"
_HOP = ("connection", "keep-alive", "x-hf-authorization", "host")
_MAX_HEAD = 64 * 1024


class Gateway:
    """A byte-level HTTP/1.1 proxy on loopback, one request a connection. `public_host` is the Space's name outside.

    Takes the token in `Authorization`, which reaches the Space, or in `X-HF-Authorization`, which does not. `seen`
    has the header names that were passed on, for each request.
    """

    def __init__(self, target_port: int, *, public_host: str = "localhost") -> None:
        self._target = target_port
        self._public_host = public_host
        self.seen: list[dict[str, str]] = []
        self.refused = 0
        self.port = free_port()

    @property
    def url(self) -> str:
        """Where LibreChat goes."""
        return f"http://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request and its answer."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            request, *lines = head.decode("latin-1").split("\r\n")[:-2]
            headers = [tuple(line.split(":", 1)) for line in lines]
            given = {name.lower(): value.strip() for name, value in headers}
            if f"Bearer {TOKEN}" not in (given.get("authorization"), given.get("x-hf-authorization")):
                self.refused += 1
                writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\nConnection: close\r\n\r\nNot Found")
                await writer.drain()
                return
            kept = [(name, value.strip()) for name, value in headers if name.lower() not in _HOP]
            kept += [("Host", self._public_host), ("X-Forwarded-Proto", "https"), ("Connection", "close")]
            self.seen.append({name.lower(): value for name, value in kept})
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target)
            try:
                lines = [request, *(f"{name}: {value}" for name, value in kept)]
                upstream.write("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
                await _both(_pump(reader, upstream), _pump(upstream_reader, writer))
            finally:
                upstream.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()


async def _both(upload: AsyncIterator[None] | object, download: object) -> None:
    """Until the answer is through, or the client is gone."""
    tasks = [asyncio.ensure_future(upload), asyncio.ensure_future(download)]  # type: ignore[arg-type]
    try:
        # a client that has sent its request may keep its side open; the answer's end is the end
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def gateway(target_port: int, *, public_host: str = "localhost") -> AsyncIterator[Gateway]:
    """A gateway in front of the Space on `target_port`."""
    made = Gateway(target_port, public_host=public_host)
    server = await asyncio.start_server(made.serve, "127.0.0.1", made.port, limit=_MAX_HEAD)
    try:
        yield made
    finally:
        server.close()
        server.close_clients() if hasattr(server, "close_clients") else None
