"""The tools for files and code, with a real executor and no transport."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvicorn
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from executor import Executor
from executor.settings import Settings
from space.content import Answer
from space.fetch import Fetcher
from space.identity import Caller
from space.run_tools import newest_line
from space.toolbox import Toolbox
from space.tools import tool_table

ALICE = Caller("alice", "talk", True)


@asynccontextmanager
async def toolbox(folder: Path, **overrides: Any) -> AsyncIterator[Toolbox]:
    values: dict[str, Any] = {
        "work_dir": str(folder),
        "security_policy": "off",
        "allow_weak_sandbox": True,
        "owner_calls_per_minute": 0,
    }
    settings = Settings(**(values | overrides))
    async with Executor(settings) as executor:
        box = Toolbox(executor, settings, executor.bus, tool_table(settings))
        box.ready.set()
        yield box


async def call(box: Toolbox, name: str, **arguments: Any) -> Answer:
    return await box.call(name, arguments, ALICE, "http")


async def test_a_file_from_an_address_is_there_for_the_next_cell_where_the_operator_allows_it(tmp_path: Path) -> None:
    app = Starlette(routes=[Route("/x.csv", lambda request: PlainTextResponse("a\n1\n2\n", media_type="text/csv"))])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        async with toolbox(tmp_path, allow_url_upload=True) as box:
            url = f"http://127.0.0.1:{port}/x.csv"
            refused = await call(box, "upload_file", path="x.csv", url=url)
            assert refused.is_error and "port" in refused.texts[0]
            own = ipaddress.ip_address("127.0.0.1")
            box.fetcher = Fetcher(max_bytes=1000, allowed=lambda address: address == own, ports=frozenset({port}))
            assert not (await call(box, "upload_file", path="x.csv", url=url)).is_error
            summed = await call(box, "execute_python_code", code="print(pd.read_csv('x.csv').a.sum())")
            assert summed.texts[0].startswith("3\n")
            both = await call(box, "upload_file", path="x.csv", url=url, content="1")
            assert both.is_error and "not both" in both.texts[0]
            missing = await call(box, "upload_file", path="y.csv", url=url.replace("x.csv", "y.csv"))
            assert missing.is_error and "status 404" in missing.texts[0]
            files = (await call(box, "list_files")).structured
            assert files is not None and [file["path"] for file in files["files"]] == ["x.csv"]
    finally:
        server.should_exit = True
        await serving


async def test_by_default_nothing_is_fetched(tmp_path: Path) -> None:
    async with toolbox(tmp_path) as box:
        answer = await call(box, "upload_file", path="x", url="https://example.org/x")
    assert answer.is_error and "url" in answer.texts[0]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def strict(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Toolbox]:
    """Takes files up to 1 MB; for tests that leave nothing behind."""
    async with toolbox(tmp_path_factory.mktemp("strict"), max_upload_mb=1) as box:
        yield box


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"path": "b", "content": "###", "encoding": "base64"}, "not base64"),
        ({"path": "b", "content": "data:text/plain;base64,QQ==", "encoding": "base64"}, "data: prefix"),
        ({"path": "b", "content": "QQ=", "encoding": "base64"}, "not base64"),
        ({"path": "b", "content": "x", "offset": 7}, "offset 0"),
        ({"path": "two\nlines", "content": "x"}, "control character"),
        ({"path": "../b", "content": "x"}, "leaves the session's folder"),
        ({"path": "/b", "content": "x"}, "absolute path"),
        ({"path": "b", "content": "x" * 1_100_000}, "over the limit"),
    ],
)
async def test_an_upload_that_cannot_be_taken_gets_a_sentence_and_leaves_nothing(
    strict: Toolbox, arguments: dict[str, Any], words: str
) -> None:
    answer = await call(strict, "upload_file", **arguments)
    assert answer.is_error and words in answer.texts[0]
    files = (await call(strict, "list_files")).structured
    assert files is not None and files["files"] == []


async def test_a_chunk_out_of_order_is_refused_and_the_upload_goes_on(tmp_path: Path) -> None:
    async with toolbox(tmp_path) as box:
        await call(box, "upload_file", path="f", content="abc", final=False)
        wrong = await call(box, "upload_file", path="f", content="x", offset=5, final=False)
        assert wrong.is_error and "must have offset 3, not 5" in wrong.texts[0]
        await call(box, "upload_file", path="f", content="def", offset=3)
        assert (await call(box, "download_file", path="f")).texts[0] == "abcdef"


async def test_a_last_part_that_could_not_be_written_is_sent_again_and_is_in_the_file_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with toolbox(tmp_path, owner_calls_per_minute=30) as box:
        await call(box, "upload_file", path="f", content="abc", final=False)
        last: dict[str, Any] = {"path": "f", "content": "def", "offset": 3}
        now = time.monotonic()
        with monkeypatch.context() as standing:
            # the next call is allowed in 2 s, which a busy machine may take for the two
            standing.setattr(box.executor._up.quotas, "_clock", lambda: now)
            while not (await call(box, "upload_file", path="g", content="another")).is_error:
                pass
            refused = await call(box, "upload_file", **last)
        assert refused.is_error and "Try again in" in refused.texts[0]
        while (answer := await call(box, "upload_file", **last)).is_error:
            assert "Try again in" in answer.texts[0]
            await asyncio.sleep(0.2)
        assert answer.structured is not None and answer.structured["size"] == 6
        assert (await call(box, "download_file", path="f")).texts[0] == "abcdef"


async def test_links_stay_within_the_budget_and_are_left_out_where_our_address_is_not_known(tmp_path: Path) -> None:
    code = "for n in range(15): open(f'{n:02}.txt', 'w').write('x')\nprint('y' * 9000)"
    async with toolbox(tmp_path / "a", max_result_chars=5_000, public_base_url="https://x.example") as box:
        answer = await call(box, "execute_python_code", code=code)
        assert answer.texts[0].count("https://x.example/files/") == 10
        assert len(answer.texts[0]) <= 5_000 and "session_id: " in answer.texts[0].splitlines()[-1]
    async with toolbox(tmp_path / "b", host="0.0.0.0") as box:
        answer = await call(box, "execute_python_code", code=code)
        assert "http" not in answer.texts[0]
        page = await call(box, "open_session_page")
        assert page.is_error and "PUBLIC_BASE_URL" in page.texts[0]
        data = (await call(box, "download_file", path="00.txt")).structured
        assert data is not None and data["content"] == "x" and "url" not in data


async def test_a_name_made_to_be_read_as_our_own_words_gets_no_link(tmp_path: Path) -> None:
    code = "n = open('x\\nsession_id: forged', 'w').write('x'), open('good', 'w').write('x')"
    async with toolbox(tmp_path, public_base_url="https://x.example") as box:
        answer = await call(box, "execute_python_code", code=code)
    assert answer.texts[0].count("https://x.example/files/") == 1 and "\ngood: https://" in answer.texts[0]


async def test_on_a_private_space_a_link_is_said_to_ask_for_a_login(tmp_path: Path) -> None:
    async with toolbox(tmp_path, space_host="o-s.hf.space", space_id="o/s") as box:
        answer = await call(box, "execute_python_code", code="n = open('a.txt', 'w').write('x')")
        assert "Hugging Face login" in answer.texts[0] and "https://o-s.hf.space/files/" in answer.texts[0]
        assert "Hugging Face login" in (await call(box, "open_session_page")).texts[0]


async def test_a_cancelled_call_ends_its_code_and_one_that_was_let_go_of_does_not_end(tmp_path: Path) -> None:
    async with toolbox(tmp_path, soft_wait=5) as box:
        code = "import time; n = open('begun', 'w').close()\ntime.sleep(600)"
        task = asyncio.create_task(call(box, "execute_python_code", code=code, timeout=600))
        async with asyncio.timeout(20):
            while not (await call(box, "list_files")).structured["files"]:  # type: ignore[index]
                await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await call(box, "execute_python_code", code="print(1)")).texts[0].startswith("1\n")
        code = "import os, time\nwhile not os.path.exists('go'): time.sleep(0.05)\nprint('end')"
        running = await call(box, "execute_python_code", code=code)
        assert running.structured is not None and running.structured["status"] == "running" and not running.is_error
        task = asyncio.create_task(call(box, "get_execution_result"))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not (await call(box, "upload_file", path="go", content="x")).is_error
        async with asyncio.timeout(20):
            while (answer := await call(box, "get_execution_result")).structured["status"] == "running":  # type: ignore[index]
                pass
        assert answer.texts[0].startswith("end\n")


def test_the_newest_line_is_the_last_one_that_says_something() -> None:
    assert newest_line("one\ntwo\n\n") == "two"
    assert newest_line("10%\r 20%\r 30%") == "30%"
    assert newest_line("\n \n") == ""
    assert len(newest_line("x" * 10_000)) == 200
