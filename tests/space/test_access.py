"""The door: host names, origins, the access key and its cookie."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from executor.events import AccessRefused, Bus, Event
from executor.settings import Settings
from space.access import HostCheck, KeyCheck
from space.attempts import IN_ALL, KNOWN, PER_ADDRESS, Attempts
from space.links import Grant, Links

KEY = "a long and secret key ✓"


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")


@asynccontextmanager
async def client(bus: Bus | None = None, *, key: str = "", **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    bus = bus or Bus()
    middleware = [Middleware(HostCheck, settings=Settings(**settings), bus=bus)]  # type: ignore[arg-type]
    if key:
        middleware.append(Middleware(KeyCheck, key=key, bus=bus))
    paths = ("/", "/healthz", "/metrics", "/files/{token}", "/gradio_api/mcp/sse")
    app = Starlette(routes=[Route(path, hello, methods=["GET", "POST"]) for path in paths], middleware=middleware)
    transport = httpx.ASGITransport(app, client=("10.0.0.9", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        yield http


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:7860", "127.0.0.1:7860", "[::1]:7860", "LOCALHOST.", "owner-space.hf.space", "my.example"],
)
async def test_our_own_names_are_answered(host: str) -> None:
    async with client(
        space_host="owner-space.hf.space", allowed_hosts=("my.example",), public_base_url="https://p.example/x"
    ) as http:
        assert (await http.get("/", headers={"Host": host})).status_code == 200
        assert (await http.get("/", headers={"Host": "p.example"})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "localhost.evil.example", "10.1.2.3", "", "owner-space.hf.space.x", "[x"]
)
async def test_a_foreign_name_is_refused_with_a_sentence(host: str) -> None:
    async with client(space_host="owner-space.hf.space") as http:
        answer = await http.get("/", headers={"Host": host})
        assert answer.status_code == 421 and "ALLOWED_HOSTS" in answer.json()["error"]


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:6274", 200),
        ("https://owner-space.hf.space", 200),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
    ],
)
async def test_a_page_elsewhere_cannot_use_us(origin: str, status: int) -> None:
    async with client(space_host="owner-space.hf.space") as http:
        assert (await http.post("/", headers={"Origin": origin})).status_code == status


async def test_a_refusal_is_published() -> None:
    bus = Bus()
    seen: list[Event] = []
    bus.subscribe(seen.append)
    async with client(bus) as http:
        await http.get("/gradio_api/mcp/sse", headers={"Host": "evil.example"})
    assert await asyncio.to_thread(bus.flush)
    refused = [event for event in seen if isinstance(event, AccessRefused)]
    assert [(event.reason, event.path) for event in refused] == [("host", "/gradio_api/mcp/sse")]


async def test_everything_but_health_and_signed_links_needs_the_key() -> None:
    async with client(key=KEY) as http:
        assert (await http.get("/")).status_code == 401
        assert (await http.get("/gradio_api/mcp/sse")).status_code == 401
        assert (await http.get("/metrics")).status_code == 401
        for path in ("/healthz", "/files/abc", "/metrics?key=x"):
            assert (await http.get(path)).status_code == 200


async def test_the_header_opens() -> None:
    async with client(key=KEY) as http:
        right = {"X-Access-Key": KEY.encode()}
        assert (await http.get("/", headers=right)).status_code == 200
        wrong = await http.get("/", headers={"X-Access-Key": KEY.encode() + b"x"})
        assert wrong.status_code == 401 and wrong.json()["error"].startswith("Error:")


async def test_a_browser_gets_a_form_and_then_a_cookie() -> None:
    async with client(key=KEY) as http:
        page = await http.get("/", headers={"Accept": "text/html"})
        assert page.status_code == 401 and "<form" in page.text
        wrong = await http.post("/login", data={"key": "guess"})
        assert wrong.status_code == 401 and "not the key" in wrong.text and "set-cookie" not in wrong.headers
        right = await http.post("/login", data={"key": KEY})
        assert right.status_code == 303
        cookie = right.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and KEY not in cookie
        assert (await http.get("/")).status_code == 200


async def test_behind_https_the_cookie_works_in_the_frame_of_hugging_face() -> None:
    async with client(key=KEY) as http:
        answer = await http.post("/login", data={"key": KEY}, headers={"X-Forwarded-Proto": "https"})
        assert "SameSite=None; Secure; Partitioned" in answer.headers["set-cookie"]


async def test_a_cookie_that_was_changed_or_made_with_another_key_is_worth_nothing() -> None:
    async with client(key=KEY) as http, client(key="another") as other:
        value = (await http.post("/login", data={"key": KEY})).cookies["space_access"]
        foreign = (await other.post("/login", data={"key": "another"})).cookies["space_access"]
        http.cookies.clear()
        expiry, rest = value.split(".", 1)
        for bad in (
            foreign,
            value[:-1] + ("A" if value[-1] != "A" else "B"),
            f"{int(expiry) + 1}.{rest}",
            "",
            "..",
            "9",
        ):
            answer = await http.get("/", headers={"Cookie": f"space_access={bad}"})
            assert answer.status_code == 401, bad
        assert (await http.get("/", headers={"Cookie": f"space_access={value}"})).status_code == 200


async def test_wrong_keys_are_answered_late_and_after_some_not_looked_at() -> None:
    async with client(key=KEY) as http:
        elsewhere = {"X-Forwarded-For": "spoofed, 192.0.2.7"}
        cookie = (await http.post("/login", data={"key": KEY})).cookies["space_access"]
        http.cookies.clear()
        began = time.monotonic()
        tries = [{"X-Access-Key": f"guess {n}", **elsewhere} for n in range(60)]
        answers = await asyncio.gather(*(http.get("/", headers=headers) for headers in tries))
        assert time.monotonic() - began > 3
        assert [answer.status_code for answer in answers].count(401) == PER_ADDRESS
        right = {"X-Access-Key": KEY.encode()}
        assert (await http.get("/", headers={**right, **elsewhere})).status_code == 429
        assert (await http.post("/login", data={"key": KEY}, headers=elsewhere)).status_code == 429
        # nobody else is locked out, and neither is who has come in before
        assert (await http.get("/", headers=right)).status_code == 200
        assert (await http.get("/", headers={"Cookie": f"space_access={cookie}", **elsewhere})).status_code == 200


def test_made_up_addresses_have_a_limit_together() -> None:
    attempts = Attempts()
    for number in range(IN_ALL):
        assert not attempts.exhausted(f"{number}")
        attempts.failed(f"{number}")
    assert attempts.exhausted("somebody else")


def test_who_gave_the_right_key_lately_is_not_locked_out_by_others(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts()
    attempts.succeeded("librechat")
    for number in range(IN_ALL):
        attempts.failed(f"{number}")
    assert attempts.exhausted("somebody else") and not attempts.exhausted("librechat")
    for _ in range(PER_ADDRESS):
        assert not attempts.exhausted("librechat")
        attempts.failed("librechat")
    assert attempts.exhausted("librechat")

    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + KNOWN + 1)
    for number in range(IN_ALL):
        attempts.failed(f"{number}")
    assert attempts.exhausted("librechat")


def test_only_so_many_addresses_are_known() -> None:
    attempts = Attempts()
    attempts.succeeded("old")
    for number in range(10_000):
        attempts.succeeded(f"{number}")
    for number in range(IN_ALL):
        attempts.failed(f"wrong {number}")
    assert attempts.exhausted("old") and not attempts.exhausted("0")


@pytest.mark.parametrize("way", ["header", "form"])
async def test_wrong_keys_from_everywhere_do_not_stop_librechat(way: str) -> None:
    async with client(key=KEY) as http:
        right = {"X-Access-Key": KEY.encode(), "X-Forwarded-For": "192.0.2.1"}
        if way == "header":
            assert (await http.get("/gradio_api/mcp/sse", headers=right)).status_code == 200
        else:
            assert (await http.post("/login", data={"key": KEY}, headers=right)).status_code == 303
            http.cookies.clear()
        wrong = [{"X-Access-Key": "guess", "X-Forwarded-For": f"198.51.100.{n}"} for n in range(IN_ALL)]
        await asyncio.gather(*(http.get("/", headers=headers) for headers in wrong))
        stranger = {**right, "X-Forwarded-For": "192.0.2.2"}
        assert (await http.get("/gradio_api/mcp/sse", headers=stranger)).status_code == 429
        assert (await http.get("/gradio_api/mcp/sse", headers=right)).status_code == 200


async def test_forms_that_are_held_open_do_not_pass_the_limit_together() -> None:
    arrived, rest = 0, asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        nonlocal arrived
        yield b"key=gu"
        arrived += 1
        await rest.wait()
        yield b"ess"

    async with client(key=KEY) as http:
        tries = [asyncio.create_task(http.post("/login", content=held())) for _ in range(PER_ADDRESS + 20)]
        while arrived < len(tries):
            await asyncio.sleep(0.01)
        rest.set()
        statuses = [(await answer).status_code for answer in tries]
    assert statuses.count(401) == PER_ADDRESS and statuses.count(429) == 20


async def test_a_form_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("space.access._FORM_SECONDS", 0.2)

    async def endless() -> AsyncIterator[bytes]:
        yield b"key="
        await asyncio.Event().wait()

    async with client(key=KEY) as http:
        async with asyncio.timeout(10):
            answer = await http.post("/login", content=endless())
    assert answer.status_code == 408 and answer.json()["error"].startswith("Error:")


async def test_a_link_to_the_page_opens_the_page_and_never_the_endpoint() -> None:
    settings = Settings()
    links = Links(settings)
    page = links.page(Grant("alice", "talk", "s"))
    seen: list[Event] = []
    bus = Bus()
    bus.subscribe(seen.append)
    app = Starlette(
        routes=[Route("/{path:path}", hello, methods=["GET", "POST"])],
        middleware=[Middleware(KeyCheck, key=KEY, bus=bus, links=links)],
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as http:
        assert (await http.get(f"/gradio_api/mcp/sse{page[1:]}")).status_code == 401
        assert (await http.get(f"/metrics{page[1:]}")).status_code == 401
        assert (await http.get(f"/?session={Links(settings).page(Grant('a', None, 's'))}")).status_code == 401
        assert (
            await http.get(links.file(Grant("a", None, "s"), "x").replace("/files/", "/?session="))
        ).status_code == 401
        entered = await http.get(page)
        assert entered.status_code == 200 and "HttpOnly" in entered.headers["set-cookie"]
        for path in ("/", "/gradio_api/queue/join", "/assets/x.js"):
            assert (await http.get(path)).status_code == 200, path
        for path in (
            "/gradio_api/mcp",
            "/gradio_api/mcp/",
            "/gradio_api/mcp/sse",
            "http://localhost//gradio_api//mcp/",
            "/metrics",
        ):
            assert (await http.post(path)).status_code == 401, path
        value = http.cookies["space_access"]
        http.cookies.clear()
        # the cookie cannot be made into one that opens all
        for bad in (value.replace(".page", ""), value.replace(".page.", ".")):
            assert (await http.get("/", headers={"Cookie": f"space_access={bad}"})).status_code == 401
