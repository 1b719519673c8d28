"""An executor and the routes for its files, served by a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette

from executor import Executor
from executor.settings import Settings
from space.links import Grant, Links
from space.transfer_routes import transfer_routes


@dataclass(kw_only=True)
class Served:
    """What a test needs: the parts, a client, and a session of alice with the right to it."""

    executor: Executor
    links: Links
    http: httpx.AsyncClient
    port: int
    grant: Grant

    async def fresh(self) -> Grant:
        """The right to a session without files, the only one beside the first."""
        for old in self.executor.list_sessions(owner="alice"):
            if old.id != self.grant.session_id:
                await self.executor.close_session(old.id, owner="alice")
        return Grant("alice", None, (await self.executor.create_session(owner="alice")).id)

    async def write(self, grant: Grant, path: str, data: bytes) -> None:
        """Upload a file."""
        answer = await self.http.put(self.links.upload(grant, path), content=data)
        assert answer.status_code == 201, answer.text

    async def put(self, path: str, data: bytes) -> None:
        """Write a file past the HTTP."""

        async def chunks() -> AsyncIterator[bytes]:
            yield data

        await self.executor.put_file(self.grant.session_id, path, chunks(), owner="alice")

    async def get(self, path: str) -> bytes:
        """Read a file past the HTTP."""
        return b"".join([part async for part in self.executor.get_file(self.grant.session_id, path, owner="alice")])

    async def files(self) -> list[str]:
        """The names that are there."""
        return [info.path for info in await self.executor.list_files(self.grant.session_id, owner="alice")]

    async def run(self, code: str, language: str = "python") -> Any:
        """Run code in the session."""
        result = await self.executor.execute(code, language=language, owner="alice", session_id=self.grant.session_id)
        assert result.success, result
        return result


@asynccontextmanager
async def served(folder: Path, **overrides: Any) -> AsyncIterator[Served]:
    """Serve until the context ends."""
    values: dict[str, Any] = {
        "work_dir": str(folder),
        "security_policy": "off",
        "allow_weak_sandbox": True,
        "owner_calls_per_minute": 0,
    }
    settings = Settings(**(values | overrides))
    async with Executor(settings) as executor:
        links = Links(settings)
        app = Starlette(routes=transfer_routes(executor, links, settings, executor.bus))
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
        serving = asyncio.create_task(server.serve())
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            session = await executor.create_session(owner="alice")
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
                yield Served(
                    executor=executor, links=links, http=http, port=port, grant=Grant("alice", None, session.id)
                )
        finally:
            server.should_exit = True
            await serving
