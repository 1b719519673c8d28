"""The local Hub's server: Starlette on loopback, in a thread of its own, for `HF_ENDPOINT`."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import uvicorn
from starlette.types import Message, Receive, Scope, Send

from tests.hub.api import Api, Refused, route_of
from tests.hub.faults import Cut, Fault, Kill, Slow, Status
from tests.hub.record import Exchange


@dataclass
class LocalHub(Api):
    """`with LocalHub() as hub:` serves `hub.url`; requests are in `record`, what goes wrong in `faults`."""

    record: list[Exchange] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def __enter__(self) -> LocalHub:
        self._seen: Counter[tuple[str, str]] = Counter()
        self._socket = socket.create_server(("127.0.0.1", 0))
        # what it accepts inherits this; asyncio does not set it itself here, and each answer would take 40 ms
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._app, interface="asgi3", log_level="error", lifespan="off", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 20
        while not self._server.started:
            if time.monotonic() > deadline:
                raise TimeoutError("the local Hub did not start")
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def reset(self) -> None:
        """As new: no Spaces, no faults, an empty record."""
        self.spaces.clear()
        self.faults.clear()
        self.hosts.clear()
        self.builder = None
        self.forget()

    def forget(self) -> None:
        """An empty record; keys count from the start again."""
        self.record.clear()
        self._seen.clear()

    def asked(self, route: str, method: str | None = None) -> list[Exchange]:
        """The recorded requests of one route."""
        return [e for e in self.record if e.route == route and method in (None, e.method)]

    @property
    def changes(self) -> list[Exchange]:
        """The recorded requests that change something, or would."""
        harmless = {"validate", "preupload", "paths", "app"}
        return [e for e in self.record if e.method != "GET" and e.route not in harmless]

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return None
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        path, method = scope["path"], scope["method"]
        name, found = route_of(method, path)
        self._seen[method, name] += 1
        exchange = Exchange(
            method=method,
            path=path,
            route=name,
            number=self._seen[method, name],
            headers={k.decode().lower(): v.decode() for k, v in scope["headers"]},
            body=body,
            query=scope["query_string"].decode(),
            at=time.monotonic(),
        )
        self.record.append(exchange)
        deed = next((f.deed for f in self.faults if f.hits(exchange.key)), None)
        exchange.fault = str(deed) if deed else ""
        headers: dict[str, str] = {}
        if isinstance(deed, (Cut, Kill)) and deed.moment == "before":
            return _break(deed, send)
        if isinstance(deed, Status):
            exchange.status, exchange.answer = deed.status, json.dumps({"error": deed.message}).encode()
            headers = deed.headers
        else:
            exchange.status, exchange.answer, headers = self._answer(name, found, exchange)
        if isinstance(deed, Slow):
            await asyncio.sleep(deed.seconds)
        if isinstance(deed, (Cut, Kill)) and deed.moment == "after":
            return _break(deed, send)
        start: Message = {
            "type": "http.response.start",
            "status": exchange.status,
            "headers": [
                (b"content-type", headers.pop("content-type", "application/json").encode()),
                (b"content-length", str(len(exchange.answer)).encode()),
                *((k.encode(), v.encode()) for k, v in headers.items()),
            ],
        }
        await send(start)
        if isinstance(deed, (Cut, Kill)):
            await send(
                {
                    "type": "http.response.body",
                    "body": exchange.answer[: len(exchange.answer) // 2],
                    "more_body": True,
                }
            )
            return _break(deed, send)
        await send({"type": "http.response.body", "body": exchange.answer})
        return None

    def _answer(self, name: str, found: dict[str, str], asked: Exchange) -> tuple[int, bytes, dict[str, str]]:
        try:
            answer = self.carry_out(name, found, asked)
        except Refused as refused:
            headers = {"x-error-message": str(refused)} | ({"x-error-code": refused.code} if refused.code else {})
            return refused.status, json.dumps(refused.body).encode(), headers
        if isinstance(answer, bytes):
            kind = "text/event-stream" if name == "logs" else "application/octet-stream"
            return 200, answer, {"content-type": kind}
        return 200, json.dumps(answer).encode(), {}


def _break(deed: Cut | Kill, send: Send) -> None:
    if isinstance(deed, Kill):
        deed()
    send.__self__.transport.abort()  # type: ignore[attr-defined]  # uvicorn's own request
