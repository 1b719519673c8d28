"""Saves that are killed or cancelled, wherever they are: the next start finds a whole snapshot."""

import asyncio
import os
import time

import pytest

from tests.executor.store.volumes import operations_of_a_save, restored, two_versions


@pytest.mark.parametrize("cut", [0.0, 0.5, 1.0])
async def test_killed_at_whatever_operation_the_next_start_finds_a_whole_snapshot(
    opened, new_room, volume, killed, cut, tmp_path
):
    _, count = await operations_of_a_save(opened, new_room(), volume)
    for at in range(1, count + 1):
        room = new_room()
        opened.folder = tmp_path / f"store-{cut}-{at}"
        volume = type(volume)(opened.folder)
        volume.cut = cut
        store, former = await two_versions(opened, room, volume)
        start = volume.count

        def trouble(operation, name, number, start=start, at=at):
            if number == start + at:
                raise killed

        volume.trouble = trouble
        with pytest.raises(killed):
            await store.save("id", {"n": 2}, room.tree(), room.changed, history=b"two")
        after = await opened()
        assert opened.records.keys() == {"id"}
        snapshot, content, history = await restored(after, new_room())
        assert snapshot.damaged == [] and snapshot.meta == opened.records["id"].meta
        if snapshot.meta == {"n": 1}:
            assert (content, history) == (former, b"one")
        else:
            assert (content, history) == (room.content(), b"two")
        await after.save("id", {"n": 3}, room.tree(), room.changed)
        assert (await restored(after, new_room()))[1] == room.content()
        assert len(opened.files(".snap")) == 1


async def test_what_a_killed_save_left_is_removed_by_a_start_after_a_while(opened, room, volume, killed):
    store, _ = await two_versions(opened, room, volume)

    def trouble(operation, name, number):
        if operation == "write" and name.endswith(".snap"):
            raise killed

    volume.trouble = trouble
    with pytest.raises(killed):
        await store.save("id", {"n": 2}, room.tree(), room.changed)
    left = opened.files()
    assert len(left) == 4
    await opened()
    assert opened.files() == left
    for path in left:
        os.utime(path, (time.time() - 7200,) * 2)
    await opened()
    assert len(opened.files()) == 2


async def test_a_save_that_is_cancelled_leaves_the_former_snapshot(opened, room, new_room):
    store, former = await two_versions(opened, room)
    reached = asyncio.Event()

    async def stalling(paths):
        async for piece in room.changed(paths):
            yield piece
            reached.set()
            await asyncio.sleep(60)

    saving = asyncio.create_task(store.save("id", {"n": 2}, room.tree(), stalling))
    await reached.wait()
    saving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await saving
    snapshot, content, _ = await restored(store, new_room())
    assert (snapshot.meta, content) == ({"n": 1}, former)
    await store.save("id", {"n": 3}, room.tree(), room.changed)
    assert len(opened.files(".snap")) == 1 and (await restored(store, new_room()))[1] == room.content()
