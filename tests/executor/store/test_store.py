"""Snapshots on an ordinary disk: they come back as they were, cost what has changed, and go when they should."""

import asyncio
import os
import stat
import struct

import pytest

from executor.errors import NoSnapshot, StoreFailed
from executor.parcel import Entry


def fill(room):
    room.write("a.txt", b"hello", 0o640)
    room.write("data/large.bin", os.urandom(700_000))
    room.write("data/zeros", bytes(3_000_000))
    room.write("empty", b"")
    room.write("run", b"#!/bin/sh\n", 0o755)
    (room.root / "hollow").mkdir(mode=0o750)
    (room.root / "link").symlink_to("data/large.bin")
    room.write(os.fsdecode(b"\xff\xfe name \xe4"), b"bytes")
    room.write("ä/漢字.txt", b"unicode")


async def test_a_folder_comes_back_as_it_was_with_meta_and_history(opened, room, new_room):
    fill(room)
    store = await opened()
    meta = {"owner": "alice", "languages": {"python": ["x"]}}
    record = await store.save("id-1", meta, room.tree(), room.changed, history=b"cells")
    assert (record.session_id, record.meta, record.left_out) == ("id-1", meta, ())
    for again in (store, await opened()):
        snapshot, parcel, history = await again.load("id-1")
        restored = await new_room().unpack(parcel)
        assert restored.content() == room.content()
        assert (snapshot.meta, history, snapshot.damaged, snapshot.tree) == (meta, b"cells", [], room.tree())
        assert snapshot.sequence == record.sequence and snapshot.taken_at == record.taken_at
    assert opened.records == {"id-1": opened.records["id-1"]}
    assert opened.records["id-1"].bytes == record.bytes == sum(path.stat().st_size for path in opened.files())


async def test_a_save_asks_for_what_has_changed_and_nothing_more(opened, room, new_room):
    fill(room)
    store = await opened()
    await store.save("id", {}, room.tree(), room.changed)
    room.write("a.txt", b"other")
    room.write("new", b"new")
    (room.root / "empty").unlink()
    record = await store.save("id", {}, room.tree(), room.changed)
    assert room.asked[1:] == [["a.txt", "new"]]
    assert record.written < 3_000
    _, parcel, _ = await store.load("id")
    assert (await new_room().unpack(parcel)).content() == room.content()


async def test_when_nothing_changed_nothing_is_written_and_for_meta_alone_only_a_manifest(opened, room):
    fill(room)
    store = await opened()
    first = await store.save("id", {"n": 1}, room.tree(), room.changed, history=b"h")
    before = opened.files()
    assert (await store.save("id", {"n": 1}, room.tree(), room.changed, history=b"h")).sequence == first.sequence
    assert opened.files() == before
    second = await store.save("id", {"n": 2}, room.tree(), room.changed, history=b"h")
    assert len(room.asked) == 1
    assert second.sequence == first.sequence + 1 and second.written < 3_000
    assert opened.files(".pack") == [path for path in before if path.name.endswith(".pack")]
    assert len(opened.files(".snap")) == 1


async def test_a_stamp_changes_the_meta_and_asks_for_no_content(opened, room, new_room):
    fill(room)
    store = await opened()
    first = await store.save("id", {"n": 1, "m": 1}, room.tree(), room.changed, history=b"h")
    asked = len(room.asked)
    record = await store.stamp("id", {"n": 2}, renewed=False)
    assert record.taken_at == first.taken_at
    record = await store.stamp("id", {"n": 2}, renewed=True)
    assert (record.meta, len(room.asked)) == ({"n": 2, "m": 1}, asked) and record.taken_at > first.taken_at
    assert len(opened.files(".snap")) == len(opened.files(".pack")) == 1, "the former manifest goes"
    for again in (store, await opened()):
        snapshot, parcel, history = await again.load("id")
        assert (snapshot.meta, history) == ({"n": 2, "m": 1}, b"h")
        assert (await new_room().unpack(parcel)).content() == room.content()
    assert (await store.save("id", {"n": 2, "m": 1}, room.tree(), room.changed, history=b"h")).written == 0


async def test_a_stamp_that_cannot_be_put_leaves_the_snapshot_as_it_was(opened, room, new_room):
    fill(room)
    store = await opened()
    with pytest.raises(StoreFailed):
        await store.stamp("id", {"n": 1}, renewed=True)
    await store.save("id", {"n": 1}, room.tree(), room.changed)
    (pack,) = opened.files(".pack")
    content = pack.read_bytes()
    pack.unlink()
    with pytest.raises(StoreFailed, match="relied on"):
        await store.stamp("id", {"n": 2}, renewed=True)
    pack.write_bytes(content)
    snapshot, parcel, _ = await store.load("id")
    assert snapshot.meta == {"n": 1} and (await new_room().unpack(parcel)).content() == room.content()


async def test_packs_are_rewritten_when_more_than_half_of_them_is_stale(opened, room, new_room):
    store = await opened()
    for number in range(10):
        room.write(f"f{number}", os.urandom(100_000))
    await store.save("id", {}, room.tree(), room.changed)
    for number in range(4):
        (room.root / f"f{number}").unlink()
    await store.save("id", {}, room.tree(), room.changed)
    assert len(room.asked) == 1
    for number in range(4, 7):
        (room.root / f"f{number}").unlink()
    record = await store.save("id", {}, room.tree(), room.changed)
    assert room.asked[1:] == [["f7", "f8", "f9"]]
    assert record.bytes == store.usage().bytes < 310_000
    _, parcel, _ = await store.load("id")
    assert (await new_room().unpack(parcel)).content() == room.content()


async def test_many_small_saves_leave_few_packs(opened, room, new_room):
    store = await opened()
    for number in range(60):
        room.write(f"f{number}", os.urandom(1000 + number))
        await store.save("id", {}, room.tree(), room.changed)
        assert len(opened.files(".pack")) <= 17
    assert len(opened.files(".snap")) == 1
    assert sum(map(len, room.asked)) < 500
    _, parcel, _ = await (await opened()).load("id")
    assert (await new_room().unpack(parcel)).content() == room.content()


async def test_after_a_restore_into_a_new_folder_only_changes_are_taken(opened, room, new_room):
    fill(room)
    await (await opened()).save("id", {}, room.tree(), room.changed)
    store = await opened()
    _, parcel, _ = await store.load("id")
    restored = await new_room().unpack(parcel)
    await asyncio.sleep(0.05)
    store.rebase("id", restored.tree())
    restored.write("run", b"changed")
    await store.save("id", {}, restored.tree(), restored.changed)
    assert restored.asked == [["run"]]
    _, parcel, _ = await store.load("id")
    assert (await new_room().unpack(parcel)).content() == restored.content()


async def test_a_file_that_keeps_its_size_and_forges_its_time_is_taken_again(opened, room, new_room):
    store = await opened()
    room.write("f", b"old")
    os.utime(room.root / "f", ns=(5, 5))
    await store.save("id", {}, room.tree(), room.changed)
    room.write("f", b"new")
    os.utime(room.root / "f", ns=(5, 5))
    await store.save("id", {}, room.tree(), room.changed)
    _, parcel, _ = await store.load("id")
    assert (await new_room().unpack(parcel)).content()["f"][2] == b"new"


async def test_a_file_that_vanished_is_left_out_and_one_that_grew_is_taken_as_it_came(opened, room, new_room):
    store = await opened()
    room.write("gone", b"x")
    room.write("grown", b"x")
    tree = room.tree()
    (room.root / "gone").unlink()
    room.write("grown", b"much longer")
    record = await store.save("id", {}, tree, room.changed)
    assert record.left_out == ("gone",)
    snapshot, parcel, _ = await store.load("id")
    assert (await new_room().unpack(parcel)).content() == room.content()
    assert snapshot.tree.keys() == {"grown"}
    await store.save("id", {}, room.tree(), room.changed)
    assert room.asked[-1] == ["grown"]


async def test_names_in_the_store_and_its_modes_give_nothing_away(opened, room):
    room.write("secret-name", b"x")
    store = await opened()
    await store.save("bearer-secret", {}, room.tree(), room.changed)
    for path in opened.folder.rglob("*"):
        assert "bearer" not in path.name and "secret" not in path.name
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)
    assert stat.S_IMODE(opened.folder.stat().st_mode) == 0o700


async def test_two_sessions_with_the_same_content_share_nothing(opened, new_room):
    store = await opened()
    one, two = new_room(), new_room()
    for room in (one, two):
        room.write("f", b"same" * 50_000)
    first = await store.save("one", {}, one.tree(), one.changed)
    second = await store.save("two", {}, two.tree(), two.changed)
    assert abs(first.written - second.written) < 100
    await store.delete("one")
    _, parcel, _ = await store.load("two")
    assert (await new_room().unpack(parcel)).content() == two.content()


async def test_a_session_that_was_never_saved_has_no_snapshot(opened):
    store = await opened()
    with pytest.raises(NoSnapshot, match="holds nothing"):
        await store.load("nobody")
    assert len(list(store._table)) == 0


async def test_deleting_leaves_nothing_and_the_id_can_be_used_again(opened, room, new_room):
    store = await opened()
    fill(room)
    await store.save("id", {}, room.tree(), room.changed, history=b"x")
    await store.delete("id")
    assert opened.files() == [] and store.usage().bytes == 0 and store.usage().sessions == 0
    with pytest.raises(NoSnapshot):
        await store.load("id")
    await store.delete("id")
    await store.save("id", {}, room.tree(), room.changed)
    _, parcel, _ = await store.load("id")
    assert (await new_room().unpack(parcel)).content() == room.content()


async def test_a_later_save_of_a_stopping_server_counts_until_the_new_one_has_saved(opened, room, new_room):
    old = await opened()
    room.write("f", b"1")
    await old.save("id", {"n": 1}, room.tree(), room.changed)
    new = await opened(settle=1000.0)
    room.write("f", b"2")
    await old.save("id", {"n": 2}, room.tree(), room.changed)
    snapshot, parcel, _ = await new.load("id")
    restored = await new_room().unpack(parcel)
    assert snapshot.meta == {"n": 2} and restored.content() == room.content()
    restored.write("f", b"3")
    await new.save("id", {"n": 3}, restored.tree(), restored.changed)
    room.write("g", b"late")
    await old.save("id", {"n": 4}, room.tree(), room.changed)
    for store in (new, await opened()):
        snapshot, parcel, _ = await store.load("id")
        assert snapshot.meta == {"n": 3}
        assert (await new_room().unpack(parcel)).content() == restored.content()


async def test_what_a_stopping_server_may_delete_is_not_built_upon(opened, room, new_room):
    old = await opened()
    fill(room)
    await old.save("id", {}, room.tree(), room.changed)
    new = await opened(settle=1000.0)
    await new.load("id")
    room.write("more", b"x")
    record = await new.save("id", {}, room.tree(), room.changed)
    assert record.written == record.bytes > 700_000
    _, parcel, _ = await new.load("id")
    assert (await new_room().unpack(parcel)).content() == room.content()


async def test_a_load_goes_on_while_the_session_is_saved_anew_and_deleted(opened, room, new_room):
    store = await opened()
    fill(room)
    before = room.content()
    await store.save("id", {}, room.tree(), room.changed)
    _, parcel, _ = await store.load("id")
    for path in ("data/large.bin", "data/zeros", "a.txt"):
        room.write(path, os.urandom(10))
    await store.save("id", {}, room.tree(), room.changed)
    await store.delete("id")
    assert opened.files() == []
    assert (await new_room().unpack(parcel)).content() == before


async def test_sessions_are_saved_and_loaded_at_the_same_time_without_mixing(opened, new_room):
    store = await opened()
    rooms = {f"s{number}": new_room() for number in range(30)}

    async def live(name, room):
        for turn in range(3):
            room.write("f", f"{name} {turn}".encode() * 1000)
            await store.save(name, {"turn": turn}, room.tree(), room.changed, history=name.encode())
            snapshot, parcel, history = await store.load(name)
            assert (snapshot.meta, history) == ({"turn": turn}, name.encode())
            assert (await new_room().unpack(parcel)).content() == room.content()

    await asyncio.gather(*(live(name, room) for name, room in rooms.items()))
    assert store.usage().sessions == 30


def entry(path, data=b"", kind="file", size=None):
    return Entry(tuple(path.split("/")), kind, 0o600, 7, len(data) if size is None else size).head() + data


PRINT = ("file", 0o600, 1, 7, 1, 1)


async def save_parcel(store, tree, parcel):
    async def changed(paths):
        for start in range(0, len(parcel), 1000):
            yield parcel[start : start + 1000]

    return await store.save("id", {}, tree, changed)


@pytest.mark.parametrize(
    ("parcel", "sentence"),
    [
        (entry("a", b"x", size=2**60), "cut short"),
        (entry("a", b"x")[:-1], "cut short"),
        (entry("a") + b"\0\5", "cut short"),
        (struct.pack("!HcHqQ", 1, b"P", 0, 0, 0) + b"a", "no file, folder or link"),
        (struct.pack("!HcHqQ", 4, b"F", 0, 0, 0) + b"../a", "leaves"),
        (entry("a", bytes(200_000)), "more than the whole store"),
    ],
)
async def test_a_parcel_that_lies_fails_its_save_and_leaves_the_former_snapshot(
    opened, room, new_room, parcel, sentence
):
    store = await opened(max_bytes=150_000)
    room.write("a", b"former")
    await store.save("id", {}, room.tree(), room.changed)
    before = opened.files()
    with pytest.raises(StoreFailed, match=sentence):
        await save_parcel(store, {"a": PRINT}, parcel)
    assert opened.files() == before
    for again in (store, await opened()):
        _, parcel, _ = await again.load("id")
        assert (await new_room().unpack(parcel)).content() == room.content()


async def test_a_parcel_may_bring_things_twice_unasked_and_in_each_others_way(opened, new_room):
    store = await opened()
    parcel = b"".join(
        [
            entry("a", b"first"),
            entry("a", b"last"),
            entry("a/b", b"below a file"),
            entry("unasked", b"x"),
            entry("d", kind="folder"),
            entry("d", b"a file after all"),
            entry("l", b"target", "link"),
            entry("l/x", b"below a link"),
        ]
    )
    record = await save_parcel(store, dict.fromkeys(["a", "a/b", "d", "l", "l/x"], PRINT), parcel)
    assert record.left_out == ("a/b", "l/x")
    snapshot, pieces, _ = await (await opened()).load("id")
    content = {path: data for path, (_, _, data) in (await new_room().unpack(pieces)).content().items()}
    assert content == {"a": b"last", "d": b"a file after all", "l": "target"}
    assert snapshot.damaged == []


async def test_two_servers_that_save_the_same_session_at_once_never_corrupt_it(opened, new_room):
    old = await opened()
    new = await opened(settle=1000.0)
    rooms = {"old": new_room(), "new": new_room()}
    saved = []

    async def save(name, store, turn):
        room = rooms[name]
        room.write(f"f{turn % 4}", os.urandom(50_000))
        room.write("turn", f"{name} {turn}".encode())
        saved.append(room.content())
        await store.save("id", {"by": name}, room.tree(), room.changed)

    for turn in range(25):
        await asyncio.gather(save("old", old, turn), save("new", new, turn), new.load("id"), return_exceptions=True)
        snapshot, parcel, _ = await (await opened(settle=1000.0) if turn == 20 else new).load("id")
        assert (await new_room().unpack(parcel)).content() in saved[-2:]
        assert snapshot.meta == {"by": "new"} and snapshot.damaged == []


async def test_a_server_that_was_followed_deletes_nothing_that_the_new_one_builds_upon(opened, room, new_room):
    old = await opened()
    fill(room)
    await old.save("id", {}, room.tree(), room.changed)
    new = await opened()
    _, parcel, _ = await new.load("id")
    restored = await new_room().unpack(parcel)
    await asyncio.sleep(0.05)
    new.rebase("id", restored.tree())
    restored.write("more", b"x")
    await new.save("id", {"by": "new"}, restored.tree(), restored.changed)
    assert restored.asked == [["more"]]
    for path in ("data/large.bin", "data/zeros"):
        room.write(path, os.urandom(10))
    await old.save("id", {"by": "old"}, room.tree(), room.changed)
    for store in (new, await opened()):
        snapshot, parcel, _ = await store.load("id")
        assert (await new_room().unpack(parcel)).content() == restored.content()
        assert snapshot.meta == {"by": "new"} and snapshot.damaged == []


async def test_a_pack_that_somebody_took_away_is_written_anew_even_where_nothing_changed(opened, room, new_room):
    store = await opened()
    fill(room)
    await store.save("id", {}, room.tree(), room.changed)
    for path in opened.files(".pack"):
        path.unlink()
    await store.save("id", {}, room.tree(), room.changed)
    _, parcel, _ = await (await opened()).load("id")
    assert (await new_room().unpack(parcel)).content() == room.content()
