"""A running executor for the tests of a module, and a shorter way to call it."""

import asyncio
import contextlib

import psutil
import pytest
import pytest_asyncio

from executor import Executor, Settings
from tests.executor.crowd import until

A = {"owner": "a", "conversation": "1"}
"""An owner's only conversation."""


class Caller:
    """One owner's calls, in one session unless told otherwise."""

    def __init__(self, executor, owner, session_id):
        self.executor, self.owner, self.session_id = executor, owner, session_id

    async def run(self, code, language="python", **kwargs):
        return await self.executor.execute(
            code, language=language, owner=self.owner, session_id=self.session_id, **kwargs
        )

    async def put(self, path, data):
        async def chunks():
            yield data

        return await self.executor.put_file(self.session_id, path, chunks(), owner=self.owner)

    async def get(self, path, **kwargs):
        pieces = self.executor.get_file(self.session_id, path, owner=self.owner, **kwargs)
        return b"".join([piece async for piece in pieces])

    async def files(self):
        return [info.path for info in await self.executor.list_files(self.session_id, owner=self.owner)]


async def run(executor, code, language="python", **kwargs):
    """Execute code; no call may hang."""
    async with asyncio.timeout(40):
        return await executor.execute(code, language=language, **kwargs)


async def saved(executor):
    """The session of `A`, once everything in it is saved."""
    session = executor._up.keeper.table.get(executor.list_sessions(**A)[0].id)
    await until(lambda: session.snapshot.dirty_since is None and session.snapshot.taken_at is not None)
    return session


def zygotes():
    """The zygotes of this process's executors; other children, those of other tests' fixtures among them, are not."""
    found = []
    for process in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "executor.local.zygote" in " ".join(process.cmdline()):
                found.append(process)
    return found


def settings(tmp_path_factory, **overrides):
    """Settings for a test: nothing of the environment, a state folder of its own."""
    values = {
        "work_dir": str(tmp_path_factory.mktemp("state")),
        "security_policy": "off",
        "allow_weak_sandbox": True,
        "max_sessions": 20,
        # one owner makes the calls of a whole module
        "owner_calls_per_minute": 0,
    }
    return Settings(**(values | overrides))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(tmp_path_factory):
    # on a busy machine, a second may be too little for a soft stop
    async with Executor(settings(tmp_path_factory, interrupt_grace=5.0)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def caller(executor):
    session = await executor.create_session(owner="alice")
    yield Caller(executor, "alice", session.id)
    try:
        await executor.close_session(session.id, owner="alice")
    except Exception as error:
        assert "has ended" in str(error)


@pytest.fixture(scope="module")
def make_settings(tmp_path_factory):
    return lambda **overrides: settings(tmp_path_factory, **overrides)


@pytest.fixture(name="settings")
def settings_of_a_store(make_settings, tmp_path):
    """Settings for tests of what outlives: a store of the test's own, and snapshots soon after each cell."""
    values = {"state_dir": str(tmp_path / "kept"), "snapshot_after": 0.1, "spare_sessions": 0}
    return lambda **overrides: make_settings(**(values | overrides))
