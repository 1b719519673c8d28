"""Who may come in: the host names that the Space answers to, and the optional access key with its login form."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import html
import re
import secrets
import time
from collections.abc import Collection, Iterable
from http.cookies import CookieError, SimpleCookie
from typing import Literal
from urllib.parse import parse_qs, urlsplit

from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from executor.events import AccessRefused, Bus
from executor.settings import Settings
from space.attempts import Attempts
from space.links import SESSION_PARAMETER, LinkRefused, Links

KEY_HEADER = "X-Access-Key"
LOGIN_PATH = "/login"
COOKIE = "space_access"
COOKIE_SECONDS = 7 * 24 * 3600
OPEN_PATHS: tuple[str, ...] = (
    "/healthz",
    "/files/",  # signed links carry their own right
    "/upload/",
    "/gradio_api/startup-events",  # Gradio's launch asks this of itself and gives up without an answer
)
"""Paths that need no access key; one that ends with a slash stands for everything below it."""
SELF_CHECKED = "/metrics"
"""Lets itself be asked with a `key` parameter of its own, because a scraper's headers are spent on the way."""

_PAGE = ".page"
"""At the end of a cookie that a link to the page gave."""
_NOT_THE_PAGES = re.compile(r"/*(gradio_api/*mcp|metrics)(/|$)")

Reason = Literal["host", "origin", "key"]
_LOCAL = ("localhost", "127.0.0.1", "::1")
_MAX_FORM_BYTES = 4096
_FORM_SECONDS = 10.0


class HostCheck:
    """Answers requests only if they are addressed to us, and come from our own pages where a browser names the page.

    A page elsewhere can point its own name at our address (DNS rebinding); then `Host` is that name. It can also send
    requests across origins; then `Origin` is its own.
    """

    def __init__(self, app: ASGIApp, settings: Settings, bus: Bus) -> None:
        self._app = app
        self._bus = bus
        named = (settings.space_host, urlsplit(settings.public_base_url).netloc, *settings.allowed_hosts)
        self._hosts = frozenset(_LOCAL) | {host for name in named if (host := _host_name(name))}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        host, origin = _header(scope, b"host"), _header(scope, b"origin")
        if not self._ours(_host_name(host or ""), scope):
            self._bus.publish(AccessRefused(reason="host", path=_shown_path(scope)))
            sentence = (
                f"Error: this server does not answer to the host name {(host or '')[:200]!r}. "
                "Its operator can add the name to ALLOWED_HOSTS."
            )
            await _refuse(scope, receive, send, 421, sentence)
            return
        if origin is not None and not self._ours(_host_name(urlsplit(origin).netloc), scope):
            self._bus.publish(AccessRefused(reason="origin", path=_shown_path(scope)))
            sentence = f"Error: requests from pages of {origin[:200]!r} are not taken here (ALLOWED_HOSTS)."
            await _refuse(scope, receive, send, 403, sentence)
            return
        await self._app(scope, receive, send)

    def _ours(self, host: str, scope: Scope) -> bool:
        if not host:
            return False
        if host in self._hosts:
            return True
        # our own address as a number: no name was resolved, so none can have been bound anew
        server = scope.get("server")
        return server is not None and host == server[0]


class KeyCheck:
    """Asks for the access key: in the header `X-Access-Key`, or once in a form that sets a cookie for the page.

    Wrong keys are answered late, later with every one in the last minute, and after some of them no further key from
    that address is looked at for a while; after many from anywhere, none from an address that has not given the right
    one lately. Cookies cannot be guessed, so they always hold.
    """

    def __init__(
        self,
        app: ASGIApp,
        key: str,
        bus: Bus,
        *,
        links: Links | None = None,
        open_paths: Collection[str] = OPEN_PATHS,
    ) -> None:
        self._app = app
        self._key = key.encode()
        self._bus = bus
        self._links = links
        self._paths = frozenset(path for path in open_paths if not path.endswith("/"))
        self._folders = tuple(path for path in open_paths if path.endswith("/"))
        # a new key ends every cookie that the old one gave
        self._signing = hashlib.sha256(b"cookie of " + self._key).digest()
        self._attempts = Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket") or self._open(scope):
            await self._app(scope, receive, send)
            return
        if scope["path"] == LOGIN_PATH and scope["type"] == "http":
            await self._login(scope, receive, send)
            return
        given = _header(scope, KEY_HEADER.lower().encode())
        if given is not None:
            if self._attempts.exhausted(_address(scope)):
                await self._too_many(scope, receive, send)
                return
            if self._matches(given.encode("latin-1")):
                self._attempts.succeeded(_address(scope))
                await self._app(scope, receive, send)
                return
            await asyncio.sleep(self._attempts.failed(_address(scope)))
        elif self._cookie_holds(scope):
            await self._app(scope, receive, send)
            return
        elif (expires := self._linked(scope)) is not None:
            await self._app(scope, receive, self._with_cookie(scope, send, expires))
            return
        self._bus.publish(AccessRefused(reason="key", path=_shown_path(scope)))
        if scope["type"] == "http" and given is None and "text/html" in (_header(scope, b"accept") or ""):
            await _form("", 401)(scope, receive, send)
            return
        wrong = "is wrong" if given is not None else "is missing"
        await _refuse(scope, receive, send, 401, f"Error: the access key {wrong}. Send it in the header {KEY_HEADER}.")

    def _open(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if path == SELF_CHECKED:
            return "key" in parse_qs(scope["query_string"].decode("latin-1"))
        return path in self._paths or path.startswith(self._folders)

    def _matches(self, given: bytes) -> bool:
        return hmac.compare_digest(given, self._key)

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await _form("", 200)(scope, receive, send)
            return
        try:
            async with asyncio.timeout(_FORM_SECONDS):
                form = await _form_body(receive)
        except TimeoutError:
            await _refuse(scope, receive, send, 408, f"Error: the form did not arrive within {_FORM_SECONDS:g} s.")
            return
        if form is None:
            return  # the client is gone
        # not before all is there: forms that are held open would all pass, and then all be looked at
        if self._attempts.exhausted(_address(scope)):
            await self._too_many(scope, receive, send)
            return
        if not self._matches(form.get("key", [""])[0].encode()):
            await asyncio.sleep(self._attempts.failed(_address(scope)))
            self._bus.publish(AccessRefused(reason="key", path=LOGIN_PATH))
            await _form("That is not the key.", 401)(scope, receive, send)
            return
        self._attempts.succeeded(_address(scope))
        response = RedirectResponse("/", 303)
        response.headers["Set-Cookie"] = self._cookie(scope, time.time() + COOKIE_SECONDS, "")
        await response(scope, receive, send)

    def _linked(self, scope: Scope) -> float | None:
        """When the signed link to the page expires that this request was made with; None where there is none."""
        if self._links is None or scope["type"] != "http" or scope["path"] != "/":
            return None
        token = parse_qs(scope["query_string"].decode("latin-1")).get(SESSION_PARAMETER, [""])[0]
        try:
            return self._links.open(token, "page").expires
        except LinkRefused:
            return None

    def _with_cookie(self, scope: Scope, send: Send, expires: float) -> Send:
        """Whoever came with a link to the page gets the page's further requests answered, and nothing else: a call of
        a tool says itself whose it is, so that the endpoint must not be open to a user who knows no key."""
        cookie = self._cookie(scope, expires, _PAGE)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"set-cookie", cookie.encode())]
            await send(message)

        return sending

    def _cookie(self, scope: Scope, expires: float, reach: str) -> str:
        body = f"{int(expires)}.{secrets.token_urlsafe(12)}{reach}"
        secure = scope.get("scheme") == "https" or _header(scope, b"x-forwarded-proto") == "https"
        # Hugging Face shows a Space inside a frame of its own site: without None the cookie would not come back there.
        # Requests from foreign pages are refused by their Origin.
        policy = "SameSite=None; Secure; Partitioned" if secure else "SameSite=Lax"
        seconds = max(1, int(expires - time.time()))
        return f"{COOKIE}={body}.{self._signature(body)}; Max-Age={seconds}; Path=/; HttpOnly; {policy}"

    def _cookie_holds(self, scope: Scope) -> bool:
        header = _header(scope, b"cookie")
        if not header:
            return False
        try:
            morsel = SimpleCookie(header).get(COOKIE)
        except CookieError:
            return False
        body, _, signature = (morsel.value if morsel else "").rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            return False
        expiry = body.partition(".")[0]
        if not (expiry.isdigit() and int(expiry) > time.time()):
            return False
        return not body.endswith(_PAGE) or _of_the_page(scope["path"])

    def _signature(self, body: str) -> str:
        digest = hmac.digest(self._signing, body.encode("utf-8", "replace"), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    async def _too_many(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._bus.publish(AccessRefused(reason="key", path=_shown_path(scope)))
        await _refuse(scope, receive, send, 429, "Error: too many wrong access keys; try again in a minute.")


def _of_the_page(path: str) -> bool:
    """Whether the page itself asks for a path."""
    return _NOT_THE_PAGES.match(path) is None


def _address(scope: Scope) -> str:
    """Where a request comes from: the peer, and who the proxy says it is, the last name being the proxy's own."""
    peer = (scope.get("client") or ("", 0))[0]
    return f"{peer} {(_header(scope, b'x-forwarded-for') or '').rpartition(',')[2].strip()[:100]}"


def _header(scope: Scope, name: bytes) -> str | None:
    headers: Iterable[tuple[bytes, bytes]] = scope["headers"]
    for key, value in headers:
        if key == name:
            return value.decode("latin-1")
    return None


def _host_name(netloc: str) -> str:
    """The host of `host:port`, lower case, without brackets, port and a dot at the end; empty for what is none."""
    try:
        return (urlsplit(f"//{netloc.strip()}").hostname or "").rstrip(".")
    except ValueError:
        return ""


def _shown_path(scope: Scope) -> str:
    return str(scope["path"])[:200]


async def _refuse(scope: Scope, receive: Receive, send: Send, status: int, sentence: str) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008, "reason": sentence[:120]})
        return
    await JSONResponse({"error": sentence}, status)(scope, receive, send)


async def _form_body(receive: Receive) -> dict[str, list[str]] | None:
    """The fields, from no more than the first `_MAX_FORM_BYTES`; None where the client went away."""
    body = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > _MAX_FORM_BYTES or not message.get("more_body", False):
            break
    return parse_qs(body[:_MAX_FORM_BYTES].decode("utf-8", "replace"))


def _form(message: str, status: int) -> Response:
    note = f'<p role="alert">{html.escape(message)}</p>' if message else ""
    page = f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Code interpreter</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="robots" content="noindex">
<style>:root{{color-scheme:light dark}}body{{font:16px/1.5 system-ui;max-width:22rem;margin:20vh auto;padding:0 1rem}}
input,button{{font:inherit;padding:.5rem .7rem;width:100%;box-sizing:border-box;margin:.3rem 0}}</style></head>
<body><h1>Code interpreter</h1>{note}<form method="post" action="{LOGIN_PATH}">
<label>Access key<input name="key" type="password" autocomplete="current-password" autofocus required></label>
<button>Open</button></form></body></html>"""
    # not no-referrer: from such a page a browser sends the form with the Origin `null`, which HostCheck refuses
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "same-origin"}
    return HTMLResponse(page, status, headers=headers)
