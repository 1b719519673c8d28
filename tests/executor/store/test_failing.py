"""Snapshots on a volume that refuses what is asked of it: what was whole stays whole, and the next save works."""

import asyncio
import errno
import os
import time

import pytest

from executor.errors import StoreFailed
from executor.store.names import key_of
from tests.executor.store.volumes import operations_of_a_save, read_only, restored, two_versions


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
async def test_whatever_operation_of_a_save_fails_there_is_a_whole_snapshot_and_the_next_save_works(
    opened, room, new_room, volume, code, tmp_path
):
    _, count = await operations_of_a_save(opened, new_room(), volume)
    for at in range(1, count + 1):
        room = new_room()
        opened.folder = volume.root = tmp_path / f"store-{code}-{at}"
        volume = type(volume)(volume.root)
        store, former = await two_versions(opened, room, volume)
        start = volume.count

        def trouble(operation, name, number, start=start, at=at):
            if number == start + at:
                raise OSError(code, os.strerror(code))

        volume.trouble = trouble
        try:
            await store.save("id", {"n": 2}, room.tree(), room.changed, history=b"two")
            saved = True
        except StoreFailed:
            saved = False
        for again in (store, await opened(read_only(volume.root))):
            snapshot, content, history = await restored(again, new_room())
            newer = snapshot.meta == {"n": 2}
            assert newer or not saved
            assert (content, history) == ((room.content(), b"two") if newer else (former, b"one"))
            assert snapshot.damaged == []
        await store.save("id", {"n": 3}, room.tree(), room.changed, history=b"three")
        snapshot, content, _ = await restored(await opened(), new_room())
        assert (snapshot.meta, content) == ({"n": 3}, room.content())
        assert len(opened.files(".snap")) == 1, f"operation {at} left something behind"


async def test_a_deletion_that_fails_says_so_and_is_done_when_the_volume_lets_it(opened, room, volume):
    store, _ = await two_versions(opened, room, volume)

    def trouble(operation, name, number):
        if operation == "delete":
            raise OSError(errno.EIO, "no")

    volume.trouble = trouble
    with pytest.raises(StoreFailed, match="keeps trying"):
        await store.delete("id")
    volume.trouble = lambda *_: None
    deadline = time.monotonic() + 30
    while opened.files() and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    assert opened.files() == []


async def test_a_store_that_cannot_be_written_can_still_be_read(opened, room, new_room, volume):
    _, former = await two_versions(opened, room)

    volume = read_only(volume.root)
    store = await opened(volume)
    assert "Read-only" in opened.faults[-1].detail
    assert (await restored(store, new_room()))[1] == former
    with pytest.raises(StoreFailed, match="Read-only"):
        await store.save("id", {}, room.tree(), room.changed)
    volume.trouble = lambda *_: None
    await store.save("id", {}, room.tree(), room.changed)
    assert (await restored(store, new_room()))[1] == room.content()


@pytest.mark.parametrize("operation", ["names", "read"])
async def test_what_could_not_be_read_at_first_is_found_later(opened, room, new_room, volume, operation):
    _, former = await two_versions(opened, room)

    def trouble(what, name, number):
        if what == operation and name[:2] == key_of("id")[:2]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    volume.trouble = trouble
    store = await opened(volume)
    assert opened.records == {} and store.unread
    other = new_room()
    other.write("f", b"1")
    await store.save("other", {}, other.tree(), other.changed)
    assert await store.open_rest() == [] and store.unread
    volume.trouble = lambda *_: None
    assert [record.session_id for record in await store.open_rest()] == ["id"]
    assert not store.unread and await store.open_rest() == []
    assert (await restored(store, new_room()))[1] == former
    await store.delete("id")


async def test_a_volume_that_does_not_let_itself_be_read_fails_the_load_and_loses_nothing(
    opened, room, new_room, volume
):
    _, former = await two_versions(opened, room)
    store = await opened(volume)

    def trouble(operation, name, number):
        if operation == "read" and name.endswith(".pack"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    volume.trouble = trouble
    with pytest.raises(StoreFailed, match="Input/output"):
        await restored(store, new_room())
    volume.trouble = lambda *_: None
    assert (await restored(store, new_room()))[1] == former
