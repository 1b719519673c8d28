"""Old snapshots go by age and size, and never one that is in use."""

import os
import time


async def test_old_sessions_go_first_by_age_and_then_by_size(opened, new_room, monkeypatch):
    store = await opened(max_bytes=350_000)
    now = time.time()
    for number, age in enumerate([1000, 500, 400, 300, 200, -5000]):
        room = new_room()
        room.write("f", os.urandom(100_000))
        monkeypatch.setattr("time.time", lambda age=age: now - age)
        await store.save(f"s{number}", {"n": number}, room.tree(), room.changed)
    monkeypatch.setattr("time.time", lambda: now)
    assert store.excess() > 0
    gone = await store.retire(older_than=600, may_go=lambda session_id: session_id != "s2")
    assert gone == [("s0", {"n": 0}, "age"), ("s1", {"n": 1}, "size"), ("s3", {"n": 3}, "size")]
    assert store.excess() == 0 and store.usage().sessions == 3
    await opened()
    assert opened.records.keys() == {"s2", "s4", "s5"}


async def test_who_is_saved_while_others_are_retired_stays(opened, new_room, monkeypatch):
    store = await opened()
    now = time.time()
    for number, age in enumerate([1000, 900, 800]):
        room = new_room()
        room.write("f", b"1")
        monkeypatch.setattr("time.time", lambda age=age: now - age)
        await store.save(f"s{number}", {"n": number}, room.tree(), room.changed)
    monkeypatch.setattr("time.time", lambda: now)
    asked, delete = [], store.delete

    async def beside(session_id):
        await delete(session_id)
        await store.save("s1", {"n": 10}, room.tree(), room.changed)

    monkeypatch.setattr(store, "delete", beside)

    def may_go(session_id):
        asked.append((session_id, store.usage().sessions))
        return True

    gone = await store.retire(older_than=600, may_go=may_go)
    assert [session_id for session_id, _, _ in gone] == ["s0", "s2"]
    # each is asked for when its turn has come
    assert asked == [("s0", 3), ("s2", 2)]


async def test_a_clock_that_is_set_forward_makes_nothing_older(opened, room, monkeypatch):
    store = await opened()
    room.write("f", b"1")
    await store.save("id", {}, room.tree(), room.changed)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 10_000_000)
    assert await store.retire(older_than=1000, may_go=lambda _: True) == []
    monkeypatch.setattr("time.time", lambda: now - 5000)
    await store.save("old", {}, room.tree(), room.changed)
    monkeypatch.setattr("time.time", lambda: now + 10_000_000)
    gone = await store.retire(older_than=1000, may_go=lambda _: True)
    assert [session_id for session_id, _, _ in gone] == ["old"]
