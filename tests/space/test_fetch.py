"""Files from addresses that callers name."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from space.fetch import Fetcher, FetchRefused, is_public

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMIT = 100_000


async def many() -> AsyncIterator[bytes]:
    while True:
        await asyncio.sleep(0)
        yield b"x" * 10_000


async def give(request: Request) -> Response:
    match request.path_params["what"]:
        case "file":
            return PlainTextResponse(f"for {request.headers['host']} {request.url.query}", media_type="text/csv")
        case "page":
            return PlainTextResponse("<p>", media_type="text/html")
        case "endless":
            return StreamingResponse(many(), media_type="application/octet-stream")
        case "large":
            return Response(b"x" * (LIMIT + 1))
        case "squeezed":
            return Response(b"x", headers={"Content-Encoding": "gzip"})
        case "missing":
            return Response(status_code=404)
        case "loop":
            return RedirectResponse("/loop")
        case "once":
            return RedirectResponse("/file?a=1")
        case _:
            return RedirectResponse(request.query_params["to"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def port() -> AsyncIterator[int]:
    app = Starlette(routes=[Route("/{what}", give)])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    await serving


def here(port: int) -> Fetcher:
    """One that may reach the test's own server, and nothing else that is not public."""
    own = ipaddress.ip_address("127.0.0.1")
    return Fetcher(
        max_bytes=LIMIT, allowed=lambda address: address == own or is_public(address), ports=frozenset({port, 80, 443})
    )


async def fetched(fetcher: Fetcher, url: str) -> bytes:
    return b"".join([chunk async for chunk in fetcher.fetch(url)])


async def test_a_file_is_fetched_under_the_name_that_was_asked_for(port: int) -> None:
    assert await fetched(here(port), f"http://127.0.0.1:{port}/file?b=2#top") == f"for 127.0.0.1:{port} b=2".encode()


async def test_a_redirect_is_followed(port: int) -> None:
    assert (await fetched(here(port), f"http://127.0.0.1:{port}/once")).endswith(b" a=1")


@pytest.mark.parametrize(
    "target",
    [
        "http://127.0.0.2/",
        "http://localhost.:80/",
        "http://[::1]/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:10.0.0.1]/",
        "file:///etc/passwd",
        "ftp://example.org/x",
        "//10.0.0.1/x",
        "http://user:word@127.0.0.1/",
        "http://127.0.0.1:22/",
    ],
)
async def test_a_redirect_is_checked_like_the_first_address(port: int, target: str) -> None:
    with pytest.raises(FetchRefused):
        await fetched(here(port), f"http://127.0.0.1:{port}/to?to={target}")


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("page", "web page"),
        ("endless", "over the limit of 100,000"),
        ("large", "over the limit of 100,000"),
        ("squeezed", "compressed"),
        ("missing", "status 404"),
        ("loop", "more than 5 times"),
    ],
)
async def test_what_is_no_file_or_too_much_gets_a_sentence(port: int, what: str, words: str) -> None:
    with pytest.raises(FetchRefused, match=words):
        await fetched(here(port), f"http://127.0.0.1:{port}/{what}")


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://0.0.0.0/",
        "http://0/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://017700000001/",
        "http://10.1.2.3/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://[::]/",
        "http://[::1]/",
        "http://[fe80::1]/",
        "http://[fd00::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
    ],
)
async def test_what_is_not_out_on_the_internet_is_not_fetched(url: str) -> None:
    with pytest.raises(FetchRefused, match=r"no public address|not found"):
        await fetched(Fetcher(max_bytes=LIMIT), url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org/x.csv",
        "file:///etc/passwd",
        "gopher://x/",
        "http://",
        "http://[::1",
        "http://x:99999/",
        "http://8.8.8.8:22/",
        "http://user:word@8.8.8.8/",
        "http://8.8.8.8/a b",
        "http://8.8.8.8/\r\nHost: y",
        "http://ex\u00e4mple.org/",
        "http://8.8.8.8/" + "x" * 5000,
    ],
)
async def test_what_is_no_proper_address_gets_a_sentence(url: str) -> None:
    with pytest.raises(FetchRefused, match=r"example\.org|not fetched"):
        await fetched(Fetcher(max_bytes=LIMIT), url)


async def test_public_addresses_are_public() -> None:
    assert is_public(ipaddress.ip_address("8.8.8.8")) and is_public(ipaddress.ip_address("2606:4700::1"))
