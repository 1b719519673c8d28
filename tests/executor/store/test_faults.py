"""Snapshots on a volume that fails, hangs, lags, is cut off or rots: what was whole stays whole, or it is said."""

import asyncio
import errno
import os
import random
import threading
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.errors import NoSnapshot, StoreFailed
from tests.executor.store.volumes import Keeper, Killed, Room, Volume


async def restored(store, room, name="id"):
    snapshot, parcel, history = await store.load(name)
    return snapshot, (await room.unpack(parcel)).content(), history


def read_only(root):
    """For a store that only looks on: it takes no epoch, so that the other one stays in charge."""
    volume = Volume(root)

    def trouble(operation, name, number):
        if operation in ("make", "create", "write", "delete"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    volume.trouble = trouble
    return volume


async def two_versions(opened, room, medium=None):
    """A session that was saved once; the folder has changed since."""
    room.write("a", b"a" * 300_000)
    room.write("b", os.urandom(300_000))
    room.write("c/d", b"first")
    store = await opened(medium)
    await store.save("id", {"n": 1}, room.tree(), room.changed, history=b"one")
    former = room.content()
    room.write("b", os.urandom(400_000))
    room.write("c/d", b"second")
    room.write("e", b"new")
    return store, former


async def operations_of_a_save(opened, room, volume):
    store, _ = await two_versions(opened, room, volume)
    start = volume.count
    await store.save("id", {"n": 2}, room.tree(), room.changed, history=b"two")
    return start, volume.count - start


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
async def test_whatever_operation_of_a_save_fails_there_is_a_whole_snapshot_and_the_next_save_works(
    opened, room, new_room, volume, code, tmp_path
):
    _, count = await operations_of_a_save(opened, new_room(), volume)
    assert count > 10
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


async def test_on_a_volume_that_shows_things_late_nothing_is_lost_and_the_former_goes_later(
    opened, room, new_room, volume
):
    volume.late = 0.3
    store, _ = await two_versions(opened, room, volume)
    await store.save("id", {"n": 2}, room.tree(), room.changed)
    assert len(opened.files(".snap")) == 2
    snapshot, content, _ = await restored(store, new_room())
    assert snapshot.meta == {"n": 2} and content == room.content()
    await asyncio.sleep(0.4)
    room.write("e", b"newer")
    await store.save("id", {"n": 3}, room.tree(), room.changed)
    await asyncio.sleep(0.4)
    await store.save("id", {"n": 4}, room.tree(), room.changed)
    await asyncio.sleep(0.4)
    await store.save("id", {"n": 5}, room.tree(), room.changed)
    assert len(opened.files(".snap")) < 4
    assert (await restored(store, new_room()))[1] == room.content()
    await asyncio.sleep(0.4)
    assert (await restored(await opened(), new_room()))[1] == room.content()


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


async def test_a_deleted_session_stays_away_where_deletions_show_late(opened, room, volume):
    volume.late = 0.5
    store, _ = await two_versions(opened, room, volume)
    await asyncio.sleep(0.6)
    await store.delete("id")
    assert any(volume.names(path.name) for path in opened.folder.iterdir() if len(path.name) == 2)
    with pytest.raises(NoSnapshot):
        await store.load("id")
    assert opened.files() == []


async def test_what_another_server_writes_of_a_deleted_session_is_deleted_too(opened, room):
    other, _ = await two_versions(opened, room)
    store = await opened()
    await store.delete("id")
    await other.save("id", {"n": 2}, room.tree(), room.changed)
    assert opened.files()
    with pytest.raises(NoSnapshot):
        await store.load("id")
    deadline = time.monotonic() + 30
    while opened.files() and time.monotonic() < deadline:
        await asyncio.sleep(0.2)
    assert opened.files() == []


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
    snapshot, content, history = await restored_with_salvage(store, new_room())
    assert sorted(snapshot.damaged) == ["a", "b", "c/d"] and snapshot.history_lost
    assert content.keys() == {"c"} and history == b""
    volume.trouble = lambda *_: None
    assert (await restored(store, new_room()))[1] == former


async def restored_with_salvage(store, room):
    snapshot, parcel, history = await store.load("id", salvage=True)
    return snapshot, (await room.unpack(parcel)).content(), history


async def test_a_volume_that_hangs_costs_its_deadline_and_a_bounded_number_of_threads(opened, room, new_room, volume):
    store, former = await two_versions(opened, room)
    hanging = threading.Event()
    hanging.set()

    def trouble(operation, name, number):
        if not hanging.is_set():
            assert hanging.wait(60)

    volume.trouble = trouble
    store = await opened(volume, patience=0.2)
    before = threading.active_count()
    hanging.clear()
    try:
        for _ in range(12):
            with pytest.raises(StoreFailed, match=r"did not answer|does not answer"):
                await asyncio.wait_for(store.load("id"), 5)
        with pytest.raises(StoreFailed, match="calls to it hang"):
            await store.save("id", {}, room.tree(), room.changed)
        assert threading.active_count() - before <= 16
    finally:
        hanging.set()
    deadline = time.monotonic() + 20
    while store._access.calls.lost and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert (await restored(store, new_room()))[1] == former
    await store.save("id", {}, room.tree(), room.changed)
    assert (await restored(store, new_room()))[1] == room.content()


async def test_while_one_call_hangs_other_sessions_are_served(opened, new_room, volume):
    hanging = threading.Event()
    store = await opened(volume, patience=2.0)
    stuck, fine = new_room(), new_room()
    stuck.write("f", b"stuck")

    def trouble(operation, name, number):
        if operation == "create" and "pack" in name and not trouble.done:
            trouble.done = True
            hanging.wait(30)

    trouble.done = False
    volume.trouble = trouble
    saving = asyncio.create_task(store.save("stuck", {}, stuck.tree(), stuck.changed))
    while not trouble.done:
        await asyncio.sleep(0.01)
    for number in range(10):
        fine.write("f", str(number).encode())
        await store.save("fine", {}, fine.tree(), fine.changed)
    assert not saving.done()
    with pytest.raises(StoreFailed, match="did not answer within 2 s"):
        await saving
    hanging.set()
    assert (await restored(store, new_room(), "fine"))[1] == fine.content()


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


async def test_what_proves_nothing_is_kept_until_it_is_old(opened, room):
    await two_versions(opened, room)
    (path,) = opened.files(".snap")
    path.write_bytes(b"rotten")
    store = await opened()
    assert opened.records == {} and opened.faults
    assert await store.retire(older_than=1000, keep=[]) == [] and len(opened.files()) == 2
    for path in opened.files():
        os.utime(path, (time.time() - 2000,) * 2)
    await store.retire(older_than=1000, keep=[])
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


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("write"), st.integers(0, 5), st.integers(0, 300_000)),
            st.tuples(st.just("remove"), st.integers(0, 5), st.just(0)),
            st.tuples(st.just("save"), st.integers(0, 1), st.just(0)),
            st.tuples(st.just("kill"), st.integers(0, 1), st.integers(1, 25)),
            st.tuples(st.just("fail"), st.integers(0, 1), st.integers(1, 25)),
            st.tuples(st.just("load"), st.integers(0, 1), st.just(0)),
            st.tuples(st.just("restart"), st.just(0), st.just(0)),
            st.tuples(st.just("delete"), st.integers(0, 1), st.just(0)),
        ),
        max_size=25,
    )
)
async def test_any_sequence_of_edits_saves_kills_and_loads_gives_what_was_saved(tmp_path_factory, steps):
    root = tmp_path_factory.mktemp("model")
    await Model(root).run(steps)


class Model:
    """Two sessions with one folder, and what each one's snapshot may be."""

    def __init__(self, root):
        self.root, self.opened, self.room, self.numbers = root, Keeper(root / "store"), Room(root / "room"), 0
        self.possible = {0: [None], 1: [None]}

    async def start(self):
        self.volume = Volume(self.root / "store")
        self.store = await self.opened(self.volume)

    async def run(self, steps):
        await self.start()
        for what, which, number in [*steps, ("restart", 0, 0), ("load", 0, 0), ("load", 1, 0)]:
            await getattr(self, what)(which, number)
        for store in self.opened.stores:
            await store.aclose()

    async def write(self, which, size):
        self.room.write(f"d{which % 2}/f{which}", os.urandom(size))

    async def remove(self, which, _):
        (self.room.root / f"d{which % 2}/f{which}").unlink(missing_ok=True)

    async def save(self, which, _):
        await self.store.save(f"s{which}", {}, self.room.tree(), self.room.changed)
        self.possible[which] = [self.room.content()]

    async def interrupted(self, which, number, error, expected):
        start = self.volume.count

        def trouble(operation, name, count):
            if count == start + number:
                raise error

        self.volume.trouble = trouble
        try:
            await self.save(which, 0)
        except expected:
            self.possible[which].append(self.room.content())
        self.volume.trouble = lambda *_: None

    async def kill(self, which, number):
        await self.interrupted(which, number, Killed(), Killed)
        await self.store.aclose()
        await self.restart(0, 0)

    async def fail(self, which, number):
        await self.interrupted(which, number, OSError(errno.EIO, "no"), StoreFailed)

    async def restart(self, *_):
        await self.start()

    async def delete(self, which, _):
        await self.store.delete(f"s{which}")
        self.possible[which] = [None]

    async def load(self, which, _):
        try:
            snapshot, parcel, _ = await self.store.load(f"s{which}")
        except (NoSnapshot, StoreFailed):
            found = None  # the second where the very first save was cut off: something is there, but nothing whole
        else:
            self.numbers += 1
            found = (await Room(self.root / f"out{self.numbers}").unpack(parcel)).content()
            assert snapshot.damaged == []
        assert found in self.possible[which]
        self.possible[which] = [found]
