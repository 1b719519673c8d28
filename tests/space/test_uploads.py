"""Files that come in parts."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from typing import IO

import pytest

from space import uploads as rooms
from space.uploads import UploadRefused, Uploads

KEY = ("a", "s", "big.bin")


async def collected(uploads: Uploads) -> bytes:
    return b"".join([chunk async for chunk in uploads.finish(KEY)])


async def test_parts_in_order_are_the_file() -> None:
    uploads = Uploads(max_bytes=100)
    assert await uploads.add(KEY, 0, b"abc") == 3
    assert await uploads.add(KEY, 3, b"\x00\xff") == 5
    assert await collected(uploads) == b"abc\x00\xff"


async def test_a_part_out_of_order_is_refused_and_the_right_one_still_fits() -> None:
    uploads = Uploads(max_bytes=100)
    await uploads.add(KEY, 0, b"abc")
    for offset in (2, 4, 1):
        with pytest.raises(UploadRefused, match="must have offset 3"):
            await uploads.add(KEY, offset, b"x")
    assert await uploads.add(KEY, 3, b"d") == 4


async def test_a_later_part_without_a_first_is_refused() -> None:
    with pytest.raises(UploadRefused, match="begin with offset 0"):
        await Uploads(max_bytes=100).add(KEY, 5, b"x")


async def test_offset_0_begins_anew() -> None:
    uploads = Uploads(max_bytes=100)
    await uploads.add(KEY, 0, b"old")
    await uploads.add(KEY, 0, b"new")
    assert await collected(uploads) == b"new"


@pytest.mark.parametrize("again", [b"de", b"d", b"xyz", b""])
async def test_the_last_part_sent_again_stands_in_place_of_the_former(again: bytes) -> None:
    uploads = Uploads(max_bytes=100)
    await uploads.add(KEY, 0, b"abc")
    await uploads.add(KEY, 3, b"de")
    assert await uploads.add(KEY, 3, again) == 3 + len(again)
    with pytest.raises(UploadRefused, match=f"must have offset {3 + len(again)}, not 1; .* again, offset 3"):
        await uploads.add(KEY, 1, b"x")
    assert await uploads.add(KEY, 3 + len(again), b"!") == 4 + len(again)
    assert await collected(uploads) == b"abc" + again + b"!"


async def test_a_part_sent_again_counts_once_against_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "_TOTAL_FILES", 1)
    uploads = Uploads(max_bytes=6)
    await uploads.add(KEY, 0, b"abc")
    for _ in range(3):
        assert await uploads.add(KEY, 3, b"def") == 6
    assert await uploads.add(KEY, 3, b"d") == 4
    await uploads.add(("a", "s", "other"), 0, b"12")
    with pytest.raises(UploadRefused, match="too much is unfinished"):
        await uploads.add(KEY, 3, b"de1")
    assert await uploads.add(KEY, 3, b"e") == 4
    with pytest.raises(UploadRefused, match="limit"):
        await uploads.add(KEY, 3, b"defg")


async def test_what_a_cancelled_part_has_written_is_not_in_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    wrote, go_on = threading.Event(), threading.Event()

    class Slow:
        """A file that does not come back from its second write before it may."""

        def __init__(self, file: IO[bytes]) -> None:
            self._file = file
            self._writes = 0

        def __getattr__(self, name: str) -> object:
            return getattr(self._file, name)

        def write(self, data: bytes) -> int:
            self._writes += 1
            count = self._file.write(data)
            if self._writes == 2:
                wrote.set()
                go_on.wait(30)
            return count

    make = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: Slow(make()))
    uploads = Uploads(max_bytes=100)
    await uploads.add(KEY, 0, b"abc")
    adding = asyncio.create_task(uploads.add(KEY, 3, b"defgh"))
    await asyncio.to_thread(wrote.wait, 30)
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    # the thread still has the file
    with pytest.raises(UploadRefused, match="one after the other"):
        await uploads.add(KEY, 3, b"def")
    go_on.set()
    while True:
        try:
            assert await uploads.add(KEY, 3, b"def") == 6
            break
        except UploadRefused:
            await asyncio.sleep(0.01)
    assert await collected(uploads) == b"abcdef"


async def test_of_two_calls_with_the_last_part_one_writes_the_file() -> None:
    uploads = Uploads(max_bytes=100)
    await uploads.add(KEY, 0, b"abc")
    await uploads.add(KEY, 3, b"d")
    first = uploads.finish(KEY)
    await uploads.add(KEY, 3, b"d")
    assert await collected(uploads) == b"abcd"
    with pytest.raises(UploadRefused, match="came meanwhile"):
        await anext(first)


async def test_a_file_that_is_begun_anew_is_not_written_by_the_call_that_waited_with_the_old_one() -> None:
    uploads = Uploads(max_bytes=100)
    await uploads.add(KEY, 0, b"abc")
    await uploads.add(KEY, 3, b"d")
    old = uploads.finish(KEY)
    await uploads.add(KEY, 0, b"new,")
    with pytest.raises(UploadRefused, match="came meanwhile"):
        await anext(old)
    await uploads.add(KEY, 4, b" whole")
    assert await collected(uploads) == b"new, whole"


async def test_a_file_over_the_limit_is_dropped() -> None:
    uploads = Uploads(max_bytes=4)
    await uploads.add(KEY, 0, b"abc")
    with pytest.raises(UploadRefused, match="limit"):
        await uploads.add(KEY, 3, b"de")
    with pytest.raises(UploadRefused, match="begin with offset 0"):
        await uploads.add(KEY, 3, b"d")


async def test_only_some_uploads_may_be_unfinished() -> None:
    uploads = Uploads(max_bytes=100)
    for number in range(4):
        await uploads.add(("a", "s", f"{number}"), 0, b"x")
    with pytest.raises(UploadRefused, match="unfinished"):
        await uploads.add(("a", "s", "5"), 0, b"x")
    await uploads.add(("a", "t", "5"), 0, b"x")
    uploads.close()
    await uploads.add(("a", "s", "5"), 0, b"x")
