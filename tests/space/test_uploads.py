"""Files that come in parts."""

from __future__ import annotations

import pytest

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
