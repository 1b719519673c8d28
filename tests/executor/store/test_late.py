"""Snapshots on a volume that shows things late or hangs: nothing is lost, and nobody waits for ever."""

import asyncio
import threading
import time

import pytest

from executor.errors import NoSnapshot, StoreFailed
from tests.executor.store.volumes import restored, two_versions


async def test_on_a_volume_that_shows_things_late_nothing_is_lost_and_the_former_goes_later(
    opened, room, new_room, volume
):
    volume.late = 30.0  # however slow the saves are, the first one's names do not show before the second one is done
    store, _ = await two_versions(opened, room, volume)
    await store.save("id", {"n": 2}, room.tree(), room.changed)
    assert len(opened.files(".snap")) == 2
    volume.late = 0.3
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


async def test_a_deleted_session_stays_away_where_deletions_show_late(opened, room, volume):
    store, _ = await two_versions(opened, room, volume)
    volume.made.clear()  # what is there shows at once
    volume.late = 30.0
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


async def test_a_volume_that_hangs_costs_its_deadline_and_a_bounded_number_of_threads(opened, room, new_room, volume):
    store, former = await two_versions(opened, room)
    hanging = threading.Event()
    hanging.set()

    def trouble(operation, name, number):
        if not hanging.is_set():
            assert hanging.wait(60)

    volume.trouble = trouble
    store = await opened(volume)
    before = threading.active_count()
    store._access.calls._patience = 0.2  # for calls that hang: those that work may be slow
    hanging.clear()
    try:
        for _ in range(12):
            with pytest.raises(StoreFailed, match=r"did not answer|does not answer"):
                await asyncio.wait_for(store.load("id"), 10)
        with pytest.raises(StoreFailed, match="calls to it hang"):
            await store.save("id", {}, room.tree(), room.changed)
        assert threading.active_count() - before <= 16
    finally:
        hanging.set()
        store._access.calls._patience = 10.0
    deadline = time.monotonic() + 20
    while store._access.calls.lost and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert (await restored(store, new_room()))[1] == former
    await store.save("id", {}, room.tree(), room.changed)
    assert (await restored(store, new_room()))[1] == room.content()


async def test_while_one_call_hangs_other_sessions_are_served(opened, new_room, volume):
    hanging = threading.Event()
    store = await opened(volume, patience=10.0)  # the ten saves below must be through before
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
    with pytest.raises(StoreFailed, match="did not answer within 10 s"):
        await saving
    hanging.set()
    assert (await restored(store, new_room(), "fine"))[1] == fine.content()
