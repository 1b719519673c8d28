"""Sockets: clients that misbehave below HTTP: they do not read, only hold a connection, or die."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from urllib.parse import urlsplit

import httpx

from tests.e2e.running import identity

_AT_ONCE = 50
_HELLO = {
    "jsonrpc": "2.0",
    "id": 0,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}},
}


class Raw:
    """One SSE connection by hand, with a small buffer; `path` is where its messages go."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str) -> None:
        self.reader = reader
        self.writer = writer
        self.path = path

    @classmethod
    async def open(cls, url: str, name: str) -> Raw:
        """Connect, and read no further than the first event."""
        address = urlsplit(url)
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=8192)
        headers = "".join(f"{key}: {value}\r\n" for key, value in identity(name, name).items())
        request = f"GET /gradio_api/mcp/sse HTTP/1.1\r\nHost: {address.netloc}\r\n{headers}\r\n"
        writer.write(request.encode())
        try:
            async with asyncio.timeout(60):
                while not (line := await reader.readline()).startswith(b"data: "):
                    if not line:
                        raise ConnectionError("the server closed an SSE connection before its first event")
        except BaseException:
            writer.close()
            raise
        return cls(reader, writer, line.decode().removeprefix("data: ").strip())

    def close(self) -> None:
        """Go away."""
        with contextlib.suppress(OSError):
            self.writer.close()


async def hold(url: str, count: int) -> list[Raw]:
    """That many idle connections, a few at a time."""
    few = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int) -> Raw:
        async with few:
            return await Raw.open(url, f"idle-{number}")

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def stop_reading(url: str, count: int, *, asked: int = 400) -> list[Raw]:
    """That many clients who ask for a lot (the list of tools, `asked` times) and read none of it."""
    few = asyncio.Semaphore(4)

    async def one(number: int) -> Raw:
        raw = await Raw.open(url, f"slow-{number}")
        async with few, httpx.AsyncClient(base_url=url, timeout=3) as http:
            await http.post(raw.path, json=_HELLO)
            await http.post(raw.path, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
            for request in range(1, asked):
                try:
                    answer = await http.post(raw.path, json={"jsonrpc": "2.0", "id": request, "method": "tools/list"})
                except httpx.HTTPError:
                    break  # full, or let go of
                if answer.status_code != 202:
                    break
        return raw

    return list(await asyncio.gather(*(one(number) for number in range(count))))


async def die_uploading(upload_url: str, count: int) -> None:
    """That many uploads of which half is sent and then nothing, with a reset and not with an end."""
    address = urlsplit(upload_url)

    async def one(number: int) -> None:
        _, writer = await asyncio.open_connection(address.hostname, address.port)
        head = f"PUT {address.path}/dying-{number}.bin HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Length: 2000000"
        head += "\r\n\r\n"
        writer.write(head.encode() + b"x" * 1_000_000)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(30):
                await writer.drain()
        # linger of 0: close(2) sends a reset, as a machine does that lost its program
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        writer.transport.abort()

    for number in range(0, count, _AT_ONCE):
        await asyncio.gather(*(one(each) for each in range(number, min(count, number + _AT_ONCE))))
