"""install_packages as a model calls it, against the public index: skipped with a line where none is reachable."""

from __future__ import annotations

import secrets
import subprocess
import sys

import pytest

from tests.e2e.running import RunningSpace, client, data_of, identity, text_of


@pytest.fixture(scope="module", autouse=True)
def reachable() -> None:
    command = [sys.executable, "-m", "pip", "index", "versions", "polars", "--retries", "0", "--timeout", "10"]
    if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0:
        pytest.skip("no package index is reachable from here: set pip up (pip config) to run these")


async def test_polars_is_installed_into_a_live_session_and_imported_there(space: RunningSpace, transport: str) -> None:
    me = identity(f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}")
    told: list[tuple[float, str]] = []

    async def on_progress(done: float, total: float | None, message: str | None) -> None:
        told.append((done, message or ""))

    async with client(space, transport, me) as session:
        before = await session.call_tool("execute_python_code", {"code": "kept = 41\nimport polars"})
        assert before.isError and "install_packages" in text_of(before)
        installed = await session.call_tool("install_packages", {"packages": ["polars"]}, progress_callback=on_progress)
        assert not installed.isError, text_of(installed)
        assert text_of(installed).startswith("Installed: polars ")
        assert data_of(installed)["session_id"] == data_of(before)["session_id"]
        code = "import polars as pl\nint(pl.DataFrame({'a': [kept, 1]})['a'].sum())"
        after = await session.call_tool("execute_python_code", {"code": code})
        assert text_of(after).startswith("42\n"), text_of(after)
    assert told and [seconds for seconds, _ in told] == sorted(seconds for seconds, _ in told)
    assert any("session" in line or "polars" in line for _, line in told)


async def test_what_cannot_be_installed_is_a_sentence_each(space: RunningSpace) -> None:
    asked = [
        "docopt==0.6.2",
        "nosuchpackage-qqqz",
        "torch",
        "pkg @ http://127.0.0.1/x.whl",
        "--no-binary=:all:",
        "../x",
    ]
    me = identity(f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}")
    async with client(space, "sse", me) as session:
        result = await session.call_tool("install_packages", {"packages": asked})
        empty = await session.call_tool("install_packages", {"packages": []})
        magic = await session.call_tool("execute_python_code", {"code": "%pip install polars"})
        shell = await session.call_tool("execute_bash_command", {"command": "npm install lodash"})
    assert result.isError and text_of(result).startswith("Error: Not installed: ")
    why = {refusal["request"]: refusal["reason"] for refusal in data_of(result)["refused"]}
    assert why.keys() == set(asked)
    assert "source that has to be built" in why["docopt==0.6.2"]
    assert "no package called nosuchpackage-qqqz" in why["nosuchpackage-qqqz"]
    assert "at most 300 MB" in why["torch"]
    assert all("only names and versions" in why[request] for request in asked[3:])
    assert empty.isError and "list of packages is empty" in text_of(empty)
    for refused in (magic, shell):
        assert refused.isError and "call the tool install_packages" in text_of(refused)
