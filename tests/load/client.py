"""Client: one person with one conversation, over SSE, who remembers what must be in the session."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from datetime import timedelta
from typing import Any

import anyio
import httpx
from mcp import ClientSession, McpError
from mcp.client.sse import sse_client
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult, ClientRequest

from tests.e2e.running import identity, pictures_of, text_of
from tests.load.cells import PYTHON, SHORT, STATEFUL, Cell, any_cell
from tests.load.memory import Memory
from tests.load.memory import read as read_state
from tests.load.plan import Plan
from tests.load.server import Server
from tests.load.tally import WOKEN, Tally

CALL_SECONDS = 120.0
"""A call without an answer after this long hangs, and that is an error of the server's."""
_CONNECT_SECONDS = 60.0
_GONE = ("has ended", "There is no session")
_RESTORED = "Session restored"
_BUSY = ("Try again", "try again", "still runs in this session", "still starting")


class Cut(Exception):
    """The server was killed under the call; what it did is unknown."""


class Client:
    """Runs cells until `until`, a moment of `time.monotonic`, and closes its sessions at the end."""

    def __init__(self, number: int, plan: Plan, server: Server, tally: Tally) -> None:
        self.name = f"load-user-{number}"
        self._plan = plan
        self._server = server
        self._tally = tally
        self._chance = random.Random(plan.seed * 1_000 + number)
        self._memory = Memory(self.name, plan.payload_kb)
        self._apart: str | None = None
        self._told = False
        """Whether an answer since the last stateful cell said what became of the session."""

    @property
    def codes(self) -> list[str]:
        """SHA-256 of every stateful cell that was sent."""
        return self._memory.codes

    async def run(self, until: float) -> None:
        """All its life: connecting again whenever the server was killed."""
        await asyncio.sleep(self._chance.uniform(0, self._plan.ramp))
        while True:
            await self._server.up.wait()
            life = self._server.life
            try:
                async with asyncio.timeout(max(1.0, until - time.monotonic()) + CALL_SECONDS):
                    done = await self._connected(life, until)
            except* (
                Cut,
                httpx.HTTPError,
                anyio.ClosedResourceError,
                anyio.BrokenResourceError,
                McpError,
                OSError,
            ) as e:
                done = False
                if self._server.life == life and not self._server.down.is_set():
                    self._tally.complain("unexpected", f"{self.name}: connection broke: {e.exceptions[0]!r}")
                    done = time.monotonic() > until
                    await asyncio.sleep(0.5)
            if done:
                return

    async def _connected(self, life: int, until: float) -> bool:
        """Cells over one connection; False where the server went away under it."""
        url, headers = f"{self._server.url}/gradio_api/mcp/sse", identity(self.name, f"conversation-{self.name}")
        async with (
            sse_client(url, headers=headers, timeout=_CONNECT_SECONDS) as (read, write),
            ClientSession(read, write, read_timeout_seconds=timedelta(seconds=CALL_SECONDS)) as session,
        ):
            await self._or_cut(session.initialize())
            while time.monotonic() < until:
                if self._server.life != life:
                    return False
                await self._one(session, life)
                mean = self._plan.pause * (10 if self._chance.random() < 0.1 else 1)
                await self._pause(min(self._chance.expovariate(1 / mean) if mean else 0.0, until - time.monotonic()))
            await self._stateful(session, life)
            await self._leave(session)
            return True

    async def _one(self, session: ClientSession, life: int) -> None:
        cell = any_cell(self._chance)
        if cell is None:
            await self._stateful(session, life)
        else:
            await self._checked(session, cell)

    async def _checked(self, session: ClientSession, cell: Cell) -> None:
        """Run a cell, and judge its answer."""
        arguments = dict(cell.arguments)
        if cell.apart:
            if (apart := await self._session_apart(session)) is None:
                return
            arguments["session_id"] = apart
        began = time.monotonic()
        answer = await self._answer(session, cell.tool, arguments)
        if answer is None:
            return
        result, status = answer
        took, text = time.monotonic() - began, text_of(result)
        if status not in cell.statuses:
            self._tally.complain("unexpected", f"{self.name}: {cell.kind} ended with {status}: {text[:300]}")
        elif not all(word in text for word in cell.words) or (cell.picture and not pictures_of(result)):
            self._tally.complain("wrong", f"{self.name}: {cell.kind} should have {cell.words}: {text[:300]}")
        else:
            if cell.expects_error and status != "ok":
                self._tally.expected[f"{cell.kind}: {status}"] += 1
            self._tally.took(cell.kind, took)
            if cell.kind == SHORT and _RESTORED in text:
                self._tally.took(WOKEN, took)

    async def _stateful(self, session: ClientSession, life: int) -> None:
        """Run the cell that replaces the state, and hold what it found against what must have been there."""
        memory, tally = self._memory, self._tally
        code = memory.next_cell()
        began = time.monotonic()
        answer = await self._answer(session, PYTHON, {"code": code})
        if answer is None:
            return
        text = text_of(answer[0])
        seen = read_state(text)
        if seen is None or answer[1] != "ok":
            tally.complain("unexpected", f"{self.name}: the stateful cell ended with {answer[1]}: {text[:300]}")
            return
        least = memory.least(life, self._server.killed_at)
        most = memory.sent - 1
        killed = memory.killed(life)
        gone = memory.take(seen, time.monotonic(), life)
        if seen.twice:
            tally.complain("twice", f"{self.name}: {seen.twice} numbers are in the file twice at {memory.sent}")
        if killed and (seen.before < least or seen.file < least):
            tally.complain(
                "stale", f"{self.name}: found {seen.before}, in the file {seen.file}, must be {least} or more"
            )
        elif not least <= seen.before <= most or not least <= seen.file <= most:
            tally.complain(
                "wrong",
                f"{self.name}: found {seen.before}, in the file {seen.file}, must be {least} to {most}: {text[:200]}",
            )
        elif seen.digest != memory.digest(seen.before):
            tally.complain("wrong", f"{self.name}: the blob does not belong to {seen.before}")
        else:
            tally.took(STATEFUL, time.monotonic() - began)
        if killed:
            tally.rolled_back.append(gone)
            if gone and seen.before and not self._told:
                tally.complain("silent", f"{self.name}: {gone} cells are gone and nobody said so: {text[:200]}")
        self._told = False

    async def _answer(
        self, session: ClientSession, tool: str, arguments: dict[str, Any]
    ) -> tuple[CallToolResult, str] | None:
        """The result of a call and its status, waited for where it runs long; None where the server was busy."""
        result = await self._call(session, tool, arguments)
        deadline = time.monotonic() + CALL_SECONDS
        while (status := _status(result)) == "running":
            if time.monotonic() > deadline:
                self._tally.complain("unexpected", f"{self.name}: still running: {text_of(result)[:300]}")
                return None
            data = result.structuredContent or {}
            named = {"session_id": data["session_id"], "execution_id": data["execution_id"], "wait": 2}
            result = await self._call(session, "get_execution_result", named)
        text = text_of(result)
        if _told(text):
            self._tally.restored += 1
            self._told = True
        if status in ("", "interrupted") and any(words in text for words in _BUSY):
            self._tally.expected["busy"] += 1
            return None
        return result, status

    async def _call(self, session: ClientSession, tool: str, arguments: dict[str, Any]) -> CallToolResult:
        result: CallToolResult = await self._or_cut(ask(session, tool, arguments))
        return result

    async def _or_cut(self, work: Any) -> Any:
        """The end of `work`; Cut where the server goes down first."""
        task = asyncio.ensure_future(work)
        down = asyncio.ensure_future(self._server.down.wait())
        try:
            await asyncio.wait({task, down}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Cut
            return task.result()
        finally:
            for one in (task, down):
                one.cancel()
            await asyncio.gather(task, down, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._server.down.wait(), max(0.0, seconds))

    async def _session_apart(self, session: ClientSession) -> str | None:
        """The session for what may cost the variables; made anew now and then, and after it has ended."""
        if self._apart is not None:
            listed = await self._call(session, "list_files", {"session_id": self._apart})
            if any(words in text_of(listed) for words in _GONE):
                self._apart = None
        if self._apart is None:
            made = await self._call(session, "create_execution_session", {})
            data = made.structuredContent or {}
            if "session_id" not in data:
                self._tally.expected["busy"] += 1
                return None
            self._apart = str(data["session_id"])
        return self._apart

    async def _leave(self, session: ClientSession) -> None:
        """Close what it has: what is held afterwards is the server's own."""
        listed = await self._call(session, "list_execution_sessions", {})
        for one in (listed.structuredContent or {}).get("sessions", []):
            await self._call(session, "close_execution_session", {"session_id": one["session_id"]})


async def ask(session: ClientSession, tool: str, arguments: dict[str, Any]) -> CallToolResult:
    """Call a tool, without `call_tool`: that checks every answer against a schema which it reads anew, 12 ms or more of
    what is measured here."""
    request = CallToolRequest(params=CallToolRequestParams(name=tool, arguments=arguments))
    return await session.send_request(ClientRequest(request), CallToolResult)


def _status(result: CallToolResult) -> str:
    return str((result.structuredContent or {}).get("status", ""))


def _told(text: str) -> bool:
    return _RESTORED in text or "This is a new session" in text
