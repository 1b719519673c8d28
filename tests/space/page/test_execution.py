"""Following code as the page does, and the page's examples, with a real executor."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from executor import Executor, Settings
from executor.events import Event, ToolCalled
from space.page import execution
from space.page.examples import EXAMPLES
from space.page.selftest import self_test
from space.page.visitor import Visitor

pytestmark = pytest.mark.asyncio(loop_scope="module")
VISITOR = Visitor("page:tester", "page")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def executor(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Executor]:
    state = str(tmp_path_factory.mktemp("state"))
    async with Executor(Settings(work_dir=state, allow_weak_sandbox=True)) as running:
        yield running


async def test_every_example_runs_as_it_is(executor: Executor) -> None:
    for title, language, code in EXAMPLES:
        session = await executor.create_session(**VISITOR.caller())
        result = await executor.execute(code, language=language, session_id=session.id, **VISITOR.caller())
        assert result.success, (title, result.error, result.stderr, result.violations)
        assert result.stdout or result.outputs, title
        assert not result.stderr, (title, result.stderr)
        await executor.close_session(session.id, **VISITOR.caller())


async def test_output_is_told_within_a_moment_though_nothing_follows(executor: Executor) -> None:
    session_id = await execution.session_of(executor, VISITOR, "")
    code = "import time\nprint('a')\ntime.sleep(0.02)\nprint('b')\ntime.sleep(20)"
    began = time.monotonic()
    async for progress in execution.run(executor, VISITOR, session_id, code=code, language="python", timeout=None):
        if any("b" in text for _, text in progress.printed) and progress.result is None:
            assert time.monotonic() - began < 10
            assert await executor.interrupt(session_id=session_id, **VISITOR.caller())
    assert progress.result is not None and progress.result.status == "interrupted"


async def test_streams_are_told_apart_and_kept_in_order(executor: Executor) -> None:
    session_id = await execution.session_of(executor, VISITOR, "")
    code = "echo one; sleep 0.3; echo two >&2; sleep 0.3; echo three"
    following = execution.run(executor, VISITOR, session_id, code=code, language="bash", timeout=None)
    told = [progress async for progress in following][-1]
    assert told.printed[:2] == [("stdout", "one\n"), ("stderr", "two\n")]
    assert told.result is not None and told.result.stdout == "one\nthree\n"


async def test_going_away_leaves_the_code_running_and_it_is_found_again(executor: Executor) -> None:
    told: list[Event] = []
    end = executor.bus.subscribe(told.append)
    session_id = await execution.session_of(executor, VISITOR, "")
    code = "import time\nfor n in range(25):\n    print(n, flush=True)\n    time.sleep(0.2)"
    following = execution.run(executor, VISITOR, session_id, code=code, language="python", timeout=None)
    async for progress in following:
        if progress.printed:
            break
    await following.aclose()
    running = executor.session(session_id, **VISITOR.caller()).running
    assert running is not None
    found = [progress async for progress in execution.follow(executor, VISITOR, session_id, running)][-1]
    assert found.result is not None and found.result.stdout.split() == [str(n) for n in range(25)]
    end()
    assert [event.outcome for event in told if isinstance(event, ToolCalled)] == ["cancelled"]


async def test_the_self_test_passes_and_leaves_no_session(executor: Executor) -> None:
    before = {session.id for session in executor.all_sessions()}
    tables = [table async for table in self_test(executor)]
    assert tables[-1].count("ci-ok") == 4 and "ci-bad" not in tables[-1]
    assert {session.id for session in executor.all_sessions()} == before
