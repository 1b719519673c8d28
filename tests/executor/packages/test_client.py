"""A package client's words are all heard, and it is held to what a job allows."""

import asyncio
import os
import sys

import pytest

from executor.packages.client import FetchFailed, Job, redacted, run

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture
def job(tmp_path):
    """A job of one megabyte, by its seconds."""

    def made(seconds=20.0):
        deadline = asyncio.get_running_loop().time() + seconds
        return Job(stage=tmp_path, downloads=tmp_path, deadline=deadline, seconds=seconds, max_mb=1, progress=print)

    return made


def python(code):
    return [sys.executable, "-c", code]


async def test_the_last_line_counts_although_nothing_ends_it(job):
    heard = []
    said = await run(python("print('one'); print('two', end='')"), env={}, job=job(), on_line=heard.append)
    assert said.lines == heard == ["one", "two"] and said.code == 0


async def test_a_client_that_writes_too_large_a_file_is_ended_with_a_sentence(job, tmp_path):
    code = "open('big', 'wb').write(bytes(3_000_000))"
    with pytest.raises(FetchFailed, match="at most 1 MB of packages"):
        await run(python(code), env={}, job=job())
    assert os.path.getsize(tmp_path / "big") <= 1_000_000


async def test_a_client_that_takes_too_long_is_ended_with_a_sentence(job):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    heard = []
    with pytest.raises(FetchFailed, match="not fetched within 3 s"):
        await run(python(code), env={}, job=job(3.0), on_line=heard.append)
    (pid,) = heard
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid), 0)


async def test_addresses_and_what_stands_in_them_do_not_reach_the_log():
    text = redacted("from http://user:key@127.0.0.1/simple it said HTTPConnectionPool(host='127.0.0.1')")
    assert "key" not in text and "127.0.0.1" not in text and text.startswith("from <address>")
