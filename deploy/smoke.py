"""The smoke test: what a user will do in the first minute, done over real MCP clients against any address."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from statistics import median
from typing import Any

import httpx
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult, CancelledNotification, CancelledNotificationParams, ClientNotification

from deploy.checks import Check, Report
from deploy.probe import Access, anonymous_status, healthz
from space.librechat import PATHS, Transport

TOOLS = {
    "execute_python_code",
    "execute_javascript_code",
    "execute_bash_command",
    "create_execution_session",
    "list_execution_sessions",
    "get_execution_history",
    "get_system_info",
}
"""The tools that LibreChat users have in their instructions."""

CALL_TIMEOUT = 60.0
"""Seconds that one call may take."""
BEGUN_SECONDS = 3.0
"""Within which code begins that a call has brought; it is stopped after them."""
LATENCY_CALLS = 20
LONGEST_WAIT = 61
"""Seconds that a call waits for its turn where its owner has made too many; no cap on calls a minute asks for more."""
_TOO_MANY = re.compile(r"calls a minute, which is the cap\. Try again in (\d+) s")


class Wrong(Exception):
    """What was seen instead of what should have been."""


class Smoke:
    """One run against `address`; every check is told to `say` as soon as it is done."""

    def __init__(
        self,
        address: str,
        access: Access | None,
        *,
        build_id: str = "",
        say: Callable[[str], None],
        allow_weak: bool = False,
        transports: tuple[Transport, ...] = ("sse", "streamable-http"),
        private: bool = True,
        offered: Collection[str] = (),
    ) -> None:
        """`private`: whether nobody without a token may come in; `offered`: the tools there, none for all of them."""
        self._address, self._access, self._build_id, self._say = address, access, build_id, say
        self._transports = transports
        self._allow_weak = allow_weak
        self._private, self._offered = private, frozenset(offered)
        self._waited = 0.0
        self._run = secrets.token_hex(6)
        self._report = Report()

    async def run(self) -> Report:
        """Try everything; a check that fails does not keep the others from being tried."""
        await self._check("a request without a token is refused", self._anonymous)
        if not await self._check("healthy, and the right build", self._healthy):
            return self._report
        for transport in self._transports:
            try:
                try:
                    async with self._session(transport) as session:
                        await self._over(transport, session)
                except Exception as error:
                    self._note(Check(name=f"{transport}: connect", ok=False, detail=_innermost(error)))
                cancel = partial(self._cancel, transport)
                await self._try(
                    f"{transport}: cancel ends the code, the session lives", cancel, {"execute_python_code"}
                )
            finally:
                # whatever failed before: what is left behind counts against the owner, and stays for weeks
                leave = partial(self._leave, transport)
                await self._try(
                    f"{transport}: close the sessions", leave, {"list_execution_sessions", "close_execution_session"}
                )
        return self._report

    async def _over(self, transport: Transport, session: ClientSession) -> None:
        started = time.monotonic()
        try:
            hello = await session.initialize()
        except Exception as error:
            self._note(Check(name=f"{transport}: initialize", ok=False, detail=_innermost(error)))
            return
        detail = f"{hello.serverInfo.name} {hello.serverInfo.version}"
        self._note(Check(name=f"{transport}: initialize", ok=True, detail=detail, seconds=time.monotonic() - started))
        call = self._caller(session)
        made: dict[str, Any] = {}

        async def tools() -> str:
            names = {tool.name for tool in (await session.list_tools()).tools}
            expected = TOOLS & self._offered if self._offered else TOOLS
            if missing := sorted(expected - names):
                raise Wrong(f"missing: {', '.join(missing)}")
            return f"{len(names)} tools"

        async def python() -> str:
            first = await call("execute_python_code", code="answer = 6 * 7\nprint(answer)")
            made["session_id"] = _data(first)["session_id"]
            _expect("42", _data(first)["stdout"].strip())
            again = await call("execute_python_code", code="print(answer + 1)", session_id=made["session_id"])
            _expect("43", _data(again)["stdout"].strip())
            return "variables last over two calls"

        async def javascript() -> str:
            sid = made.get("session_id")
            await call("execute_javascript_code", code="const n = [1, 2, 3].length", session_id=sid)
            said = await call("execute_javascript_code", code="console.log(n * 2)", session_id=sid)
            _expect("6", _data(said)["stdout"].strip())
            return "variables last over two calls"

        async def bash() -> str:
            sid = made.get("session_id")
            await call("execute_bash_command", command="export SMOKE=seven", session_id=sid)
            said = await call("execute_bash_command", command="echo $SMOKE", session_id=sid)
            _expect("seven", _data(said)["stdout"].strip())
            return "variables last over two calls"

        async def plot() -> str:
            code = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 9]); plt.title('smoke'); plt.show()"
            result = await call("execute_python_code", code=code, session_id=made.get("session_id"))
            pictures = [block for block in result.content if block.type == "image"]
            if not pictures:
                raise Wrong(f"no picture came back: {_text(result)[:300]}")
            data = base64.b64decode(pictures[0].data)
            if not data.startswith((b"\x89PNG", b"RIFF", b"\xff\xd8")):
                raise Wrong(f"{pictures[0].mimeType} is no picture")
            return f"{pictures[0].mimeType}, {len(data)} bytes"

        async def files() -> str:
            sid, content = made.get("session_id"), secrets.token_bytes(3000)
            await call(
                "upload_file",
                path="up.bin",
                content=base64.b64encode(content).decode(),
                encoding="base64",
                session_id=sid,
            )
            await call("execute_bash_command", command="cp up.bin down.bin && wc -c < down.bin", session_id=sid)
            back = _data(await call("download_file", path="down.bin", encoding="base64", session_id=sid))
            if base64.b64decode(back["content"]) != content:
                raise Wrong("the bytes that came back are not those that went up")
            return f"{len(content)} bytes up and down"

        async def sandbox() -> str:
            info = _data(await call("get_system_info"))
            self._report.level = str(info.get("sandbox", {}).get("level", ""))
            if self._report.level not in ("full", "strong") and not self._allow_weak:
                layers = info.get("sandbox", {}).get("layers", {})
                off = [f"{name}: {layer.get('why')}" for name, layer in layers.items() if not layer.get("on")]
                raise Wrong(f"level {self._report.level or 'unknown'}; {'; '.join(off)}")
            return f"level {self._report.level}"

        async def latency() -> str:
            times = []
            for _ in range(LATENCY_CALLS):
                begun, waited = time.monotonic(), self._waited
                await call("execute_python_code", code="1+1", session_id=made.get("session_id"))
                if self._waited > waited:
                    break
                times.append((time.monotonic() - begun) * 1000)
            if not times:
                return "not measured: OWNER_CALLS_PER_MINUTE lets no call through at once"
            return f"p50 {median(times):.1f} ms, slowest of {len(times)} {max(times):.1f} ms"

        steps: list[tuple[str, Callable[[], Awaitable[str]], set[str]]] = [
            ("tools", tools, set()),
            ("python", python, {"execute_python_code"}),
            ("javascript", javascript, {"execute_javascript_code"}),
            ("bash", bash, {"execute_bash_command"}),
            ("a plot comes back", plot, {"execute_python_code"}),
            ("a file up and down", files, {"upload_file", "execute_bash_command", "download_file"}),
            ("sandbox", sandbox, {"get_system_info"}),
            ("latency", latency, {"execute_python_code"}),
        ]
        for name, step, needed in steps:
            await self._try(f"{transport}: {name}", step, needed)

    async def _anonymous(self) -> str:
        if self._access is None:
            return "skipped: no token was given, so this address is taken for an open one"
        if not self._private:
            return "skipped: an address of this machine has no proxy of Hugging Face's in front"
        seen = []
        for path in ("/healthz", PATHS["sse"], PATHS["streamable-http"], "/"):
            status = await asyncio.to_thread(anonymous_status, self._address + path)
            if status == 0:
                raise Wrong(f"{path} gave no answer at all")
            if status not in (401, 403, 404):
                raise Wrong(
                    f"{path} answered {status} without a token: the Space is not private. Set it to private in its "
                    "settings, or run apply, at once"
                )
            seen.append(str(status))
        return ", ".join(dict.fromkeys(seen))

    async def _healthy(self) -> str:
        health = await asyncio.to_thread(healthz, self._address, self._access)
        if not health.ok:
            raise Wrong(f"/healthz answered {health.status or health.reason} with the token")
        if self._build_id and health.build_id != self._build_id:
            raise Wrong(f"build {health.build_id or 'unknown'} answers, not {self._build_id}")
        return f"build {health.build_id}" if health.build_id else "no build id: not a deployed bundle"

    async def _cancel(self, transport: Transport) -> str:
        async with self._session(transport) as session:
            await session.initialize()
            code = "import time\nkept = 5\ntime.sleep(50)"
            for number in (1, 2):  # of the request: initialize was 0
                long = asyncio.create_task(session.call_tool("execute_python_code", {"code": code}))
                await asyncio.wait({long}, timeout=BEGUN_SECONDS)
                if not long.done():
                    break
                refused = await long
                if number == 2 or not await self._waited_for(refused):
                    raise Wrong(f"code that takes 50 s was answered at once: {_text(refused)[:400]}")
            await session.send_notification(
                ClientNotification(CancelledNotification(params=CancelledNotificationParams(requestId=number)))
            )
            begun, capped = time.monotonic(), self._waited
            done, _ = await asyncio.wait({long}, timeout=1)
            async with self._session(transport) as other:
                await other.initialize()
                result = await self._caller(other)("execute_python_code", code="print(kept)", timeout=10)
            waited = time.monotonic() - begun - (self._waited - capped)
            long.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await long
            _expect("5", _data(result)["stdout"].strip())
            if waited > 20:
                raise Wrong(f"the next call waited {waited:.0f} s for code that was cancelled")
            return f"free again after {waited:.1f} s{'' if done else ', cancelled without an answer'}"

    async def _leave(self, transport: Transport) -> str:
        async with self._session(transport) as session:
            await session.initialize()
            call = self._caller(session)
            left = [entry["session_id"] for entry in _data(await call("list_execution_sessions"))["sessions"]]
            for session_id in left:
                await call("close_execution_session", session_id=session_id)
            return f"{len(left)} closed"

    @asynccontextmanager
    async def _session(self, transport: Transport) -> AsyncIterator[ClientSession]:
        url = self._address + PATHS[transport]
        # a conversation of its own, so that one session serves the calls that name none
        headers = {"X-User-Id": "deploy-smoke", "X-Conversation-Id": self._conversation(transport)}
        headers |= self._access.headers if self._access else {}
        if transport == "sse":
            async with (
                sse_client(url, headers=headers, timeout=30) as (read, write),
                ClientSession(read, write, timedelta(seconds=CALL_TIMEOUT)) as session,
            ):
                yield session
        else:
            async with (
                httpx.AsyncClient(headers=headers, timeout=httpx.Timeout(30, read=300)) as client,
                streamable_http_client(url, http_client=client) as (read, write, _),
                ClientSession(read, write, timedelta(seconds=CALL_TIMEOUT)) as session,
            ):
                yield session

    def _conversation(self, transport: Transport) -> str:
        return f"smoke-{transport}-{self._run}"

    async def _try(self, name: str, step: Callable[[], Awaitable[str]], needed: set[str]) -> None:
        """Check, or say what `needed` tool the Space does not offer."""
        if self._offered and (absent := sorted(needed - self._offered)):
            self._note(Check(name=name, ok=True, detail=f"skipped: TOOLS leaves out {', '.join(absent)}"))
            return
        await self._check(name, step)

    async def _check(self, name: str, step: Callable[[], Awaitable[str]]) -> bool:
        started = time.monotonic()
        try:
            detail, ok = await asyncio.wait_for(step(), CALL_TIMEOUT * 2), True
        except Exception as error:
            detail, ok = _innermost(error), False
        self._note(Check(name=name, ok=ok, detail=detail, seconds=time.monotonic() - started))
        return ok

    def _caller(self, session: ClientSession) -> Callable[..., Coroutine[Any, Any, CallToolResult]]:
        async def call(tool: str, **arguments: Any) -> CallToolResult:
            given = {key: value for key, value in arguments.items() if value is not None}
            result = await session.call_tool(tool, given)
            if await self._waited_for(result):
                result = await session.call_tool(tool, given)
            if result.isError:
                raise Wrong(f"{tool} answered: {_text(result)[:400]}")
            return result

        return call

    async def _waited_for(self, refused: CallToolResult) -> bool:
        """Wait as long as a refusal for too many calls asks; False, at once, where it is none."""
        asked = _TOO_MANY.search(_text(refused)) if refused.isError else None
        if asked is None or int(asked[1]) > LONGEST_WAIT:
            return False
        self._waited += int(asked[1])
        await asyncio.sleep(int(asked[1]))
        return True

    def _note(self, check: Check) -> None:
        self._report.checks.append(check)
        self._say(str(check))


def _text(result: CallToolResult) -> str:
    return "\n".join(block.text for block in result.content if block.type == "text")


def _data(result: CallToolResult) -> dict[str, Any]:
    if result.structuredContent is not None:
        return result.structuredContent
    return dict(json.loads(_text(result)))


def _expect(wanted: str, seen: str) -> None:
    if seen != wanted:
        raise Wrong(f"expected {wanted!r}, got {seen[:200]!r}")


def _innermost(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) if isinstance(error, Wrong) else f"{type(error).__name__}: {error}"[:500]
