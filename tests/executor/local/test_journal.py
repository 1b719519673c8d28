"""What leaders tell of the cells that they hand over."""

import hashlib
import json
import os

import pytest

from executor import Executor
from executor.errors import SettingsError


async def test_every_cell_that_reaches_an_interpreter_is_in_the_journal_and_no_code_is(make_settings, tmp_path):
    journal = tmp_path / "cells.jsonl"
    codes = {"python": "secret_name = 1", "javascript": "const secretName = 1", "bash": "secret_name=1"}
    async with Executor(make_settings(cell_journal=str(journal))) as executor:
        session = await executor.create_session(owner="a")
        ids = {}
        for language, code in codes.items():
            result = await executor.execute(code, language=language, owner="a", session_id=session.id)
            ids[result.execution_id] = language
        # a worker finds no handle on it
        look = "import glob, os; print([os.readlink(fd) for fd in glob.glob('/proc/self/fd/*') if os.path.exists(fd)])"
        found = await executor.execute(look, language="python", owner="a", session_id=session.id)
        assert found.status == "ok" and "/dev/null" in found.stdout and "cells.jsonl" not in found.stdout
    text = journal.read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["execution_id"]: line["language"] for line in lines[:3]} == ids
    digests = [hashlib.sha256(code.encode()).hexdigest() for code in codes.values()]
    assert [line["sha256"] for line in lines[:3]] == digests
    assert len(lines) == 4
    assert "secret" not in text and session.id not in text
    assert os.stat(journal).st_mode & 0o777 == 0o600


async def test_a_journal_is_added_to(make_settings, tmp_path):
    journal = tmp_path / "cells.jsonl"
    for _ in range(2):
        async with Executor(make_settings(cell_journal=str(journal))) as executor:
            session = await executor.create_session(owner="a")
            await executor.execute("1", language="python", owner="a", session_id=session.id)
    assert len(journal.read_text().splitlines()) == 2


@pytest.mark.parametrize("path", ["no/such/folder/cells.jsonl", "."])
def test_a_journal_that_cannot_be_written_stops_the_start(make_settings, tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=r"CELL_JOURNAL=.*cannot be written"):
        from executor.local import LocalBackend

        LocalBackend(make_settings(cell_journal=path))


def test_a_journal_that_sessions_could_read_stops_the_start(make_settings):
    from executor.local import LocalBackend

    with pytest.raises(SettingsError, match="CELL_JOURNAL"):
        LocalBackend(make_settings(cell_journal="/usr/share/cells.jsonl"))
