"""Snapshots that rot, are cut short or go missing: it is noticed, and costs what it hit."""

import errno
import os
import random
import time

import pytest

from executor.errors import NoSnapshot, StoreFailed
from tests.executor.store.volumes import restored, two_versions


async def test_a_pack_whose_tail_was_lost_is_written_anew_by_the_next_save(opened, room, new_room, volume):
    store, _ = await two_versions(opened, room, volume)
    lost = []
    inner_open = volume.inner.open

    class Short:
        def __init__(self, reader, name):
            self.reader, self.size = reader, reader.size - (10 if name in lost else 0)

        def read(self, offset, length):
            return self.reader.read(offset, length)

        def close(self):
            self.reader.close()

    def trouble(operation, name, number):
        if operation == "create" and name.endswith(".pack"):
            lost.append(name)

    volume.inner.open = lambda name: Short(inner_open(name), name)
    volume.trouble = trouble
    await store.save("id", {"n": 2}, room.tree(), room.changed)
    assert len(lost) == 1 and len(opened.files(".snap")) == 2
    volume.trouble = lambda *_: None
    await store.save("id", {"n": 3}, room.tree(), room.changed)
    assert room.asked[-1] == room.asked[-2]
    assert len(opened.files(".snap")) == 1
    assert (await restored(await opened(), new_room()))[1] == room.content()


async def test_a_flipped_bit_anywhere_is_noticed_and_costs_only_what_it_hit(opened, room, new_room):
    chance = random.Random(7)
    for number in range(12):
        room.write(f"f{number}", chance.randbytes(120_000))
    room.write("text", b"text " * 300_000)
    store = await opened()
    await store.save("id", {"n": 1}, room.tree(), room.changed, history=b"h" * 1000)
    await store.save("other", {}, room.tree(), room.changed)
    files = [path for path in opened.files() if path.name.split("-")[0] == opened.files()[0].name.split("-")[0]]
    whole = room.content()
    outcomes = {"damaged": 0, "refused": 0}
    for _ in range(60):
        path = chance.choice(files)
        original = path.read_bytes()
        data = bytearray(original)
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        after = await opened()
        for name in ("id", "other"):
            try:
                snapshot, content, history = await restored(after, new_room(), name)
            except (StoreFailed, NoSnapshot):
                outcomes["refused"] += 1
                continue
            assert content == {path: one for path, one in whole.items() if path not in snapshot.damaged}
            assert len(snapshot.damaged) <= 6
            if name == "id":
                assert history == b"h" * 1000 or (snapshot.history_lost and history == b"")
            outcomes["damaged"] += bool(snapshot.damaged) or snapshot.history_lost
        path.write_bytes(original)
    assert outcomes["damaged"] + outcomes["refused"] == 60 and min(outcomes.values()) > 0
    assert any("damaged" in fault.detail for fault in opened.faults)


async def test_with_a_damaged_newest_snapshot_the_former_one_counts_if_it_is_still_there(
    opened, room, new_room, volume
):
    store, former = await two_versions(opened, room, volume)

    def trouble(operation, name, number):
        if operation == "delete":
            raise OSError(errno.EIO, "no")

    volume.trouble = trouble
    await store.save("id", {"n": 2}, room.tree(), room.changed)
    newest = opened.files(".snap")[-1]
    newest.write_bytes(newest.read_bytes()[:-1])
    snapshot, content, _ = await restored(await opened(), new_room())
    assert (snapshot.meta, content) == ({"n": 1}, former)


async def test_whose_a_damaged_snapshot_was_can_mostly_still_be_told(opened, room):
    await two_versions(opened, room)
    (path,) = opened.files(".snap")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    store = await opened()
    assert [(ruin.session_id, ruin.meta) for ruin in store.ruins] == [("id", {"n": 1})] and opened.records == {}
    path.write_bytes(whole[:60])
    assert (await opened()).ruins == []
    # one that says it is another session's is believed nothing
    path.write_bytes(whole.replace(b'"session_id":"id"', b'"session_id":"ie"'))
    assert (await opened()).ruins == []


async def test_what_proves_nothing_is_kept_until_it_is_old(opened, room):
    await two_versions(opened, room)
    (path,) = opened.files(".snap")
    path.write_bytes(b"rotten")
    store = await opened()
    assert opened.records == {} and opened.faults
    assert await store.retire(older_than=1000, may_go=lambda _: True) == [] and len(opened.files()) == 2
    for path in opened.files():
        os.utime(path, (time.time() - 2000,) * 2)
    await store.retire(older_than=1000, may_go=lambda _: True)
    assert opened.files() == []


async def test_what_came_back_damaged_is_taken_anew_where_the_folder_still_has_it(opened, room, new_room):
    store, _ = await two_versions(opened, room)
    await store.save("id", {"n": 2}, room.tree(), room.changed)
    for pack in opened.files(".pack"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 2] ^= 1
        pack.write_bytes(data)
    snapshot, content, _ = await restored(store, new_room())
    assert snapshot.damaged and content.keys() == room.content().keys() - set(snapshot.damaged)
    await store.save("id", {"n": 3}, room.tree(), room.changed)
    assert set(snapshot.damaged) <= set(room.asked[-1])
    snapshot, content, _ = await restored(store, new_room())
    assert snapshot.damaged == [] and content == room.content()


@pytest.mark.parametrize("when", ["now", "before a start"])
@pytest.mark.parametrize("how", ["gone", "cut"])
async def test_packs_that_go_missing_cost_what_was_in_them_and_not_the_session(opened, room, new_room, how, when):
    store, _ = await two_versions(opened, room)
    room.write("a", b"a" * 300_000)
    await store.save("id", {"n": 2}, room.tree(), room.changed, history=b"two")
    await store.save("id", {"n": 3}, room.tree(), room.changed, history=b"three")
    assert len(opened.files(".pack")) == 2
    for path in opened.files(".pack")[:1]:
        path.unlink() if how == "gone" else os.truncate(path, path.stat().st_size - 1)
    if when == "before a start":
        store = await opened()
        assert opened.records.keys() == {"id"} and opened.faults
    snapshot, content, history = await restored(store, new_room())
    assert (snapshot.meta, history) == ({"n": 3}, b"three")
    assert set(snapshot.damaged) == {"a", "b", "c/d", "e"}
    assert content == {path: one for path, one in room.content().items() if path not in snapshot.damaged}
    await store.save("id", {"n": 4}, room.tree(), room.changed)
    assert (await restored(await opened(), new_room()))[1] == room.content()


async def test_after_a_start_what_is_not_there_may_only_be_late(opened, room, new_room):
    _, former = await two_versions(opened, room)
    (path,) = opened.files(".pack")
    content = path.read_bytes()
    path.unlink()
    store = await opened(settle=60.0)
    assert opened.records.keys() == {"id"}
    with pytest.raises(StoreFailed, match="not all there yet"):
        await store.load("id")
    path.write_bytes(content)
    snapshot, content, _ = await restored(store, new_room())
    assert (snapshot.damaged, content) == ([], former)


async def test_a_session_of_which_nothing_can_be_read_any_more_has_no_snapshot(opened, room):
    store, _ = await two_versions(opened, room)
    store = await opened()
    for path in opened.files():
        path.write_bytes(b"rotten")
    with pytest.raises(NoSnapshot, match=r"can be read: .* is damaged"):
        await store.load("id")
