"""What the store costs: starts with many sessions, restores, and memory however large a folder is."""

import asyncio
import os
import statistics
import time
import tracemalloc

import pytest

from executor.parcel import PIECE, Entry, Unpacker


async def fill(store, count):
    async def save(number):
        data = f"session {number}".encode()

        async def changed(paths):
            yield Entry(("f",), "file", 0o600, 1, len(data)).head() + data

        tree = {"f": ("file", 0o600, len(data), 1, 1, 1)}
        await store.save(f"s{number}", {"owner": "o", "names": ["x"] * 10}, tree, changed)

    for start in range(0, count, 100):
        await asyncio.gather(*(save(number) for number in range(start, start + 100)))


async def test_a_start_with_2000_sessions_finds_them_all_within_seconds(opened):
    await fill(await opened(), 2000)
    start = time.monotonic()
    store = await opened()
    seconds = time.monotonic() - start
    print(f"opened in {seconds:.2f} s")
    assert opened.records.keys() == {f"s{number}" for number in range(2000)}
    assert store.usage().sessions == 2000
    assert seconds < 30
    start = time.monotonic()
    gone = await store.retire(older_than=0, may_go=lambda session_id: session_id != "s7")
    print(f"retired in {time.monotonic() - start:.2f} s")
    assert len(gone) == 1999 and len(opened.files()) == 2


async def test_a_megabyte_is_restored_in_less_time_than_a_worker_takes_to_start(opened, room, new_room):
    room.write("state", os.urandom(1_000_000))
    store = await opened()
    await store.save("id", {}, room.tree(), room.changed)
    took = []
    for _ in range(20):
        start = time.perf_counter()
        _, parcel, _ = await store.load("id")
        size = sum([len(piece) async for piece in parcel])
        took.append(time.perf_counter() - start)
        assert size > 1_000_000
    print(f"restore of 1 MB: median {statistics.median(took) * 1e3:.1f} ms, worst {max(took) * 1e3:.1f} ms")
    assert min(took) < 1


@pytest.mark.timeout(300)
async def test_a_folder_of_300_mb_passes_through_in_bounded_memory(opened):
    size, block = 300 * 2**20, os.urandom(2**20)
    store = await opened()

    async def changed(paths):
        yield Entry(("big",), "file", 0o600, 1, size).head()
        for number in range(size // PIECE):
            yield block[number % 3 * PIECE :][:PIECE]

    tree = {"big": ("file", 0o600, size, 1, 1, 1)}
    tracemalloc.start()
    try:
        start = time.monotonic()
        record = await store.save("id", {}, tree, changed)
        saved = time.monotonic()
        _, parcel, _ = await store.load("id")
        unpacker, read = Unpacker(), 0
        async for piece in parcel:
            for item in unpacker.feed(piece):
                read += 0 if isinstance(item, Entry) else len(item)
        peak = tracemalloc.get_traced_memory()[1]
        print(f"save {saved - start:.1f} s, load {time.monotonic() - saved:.1f} s, peak {peak / 2**20:.1f} MiB")
    finally:
        tracemalloc.stop()
    assert read == size and record.bytes > size
    assert peak < 16 * 2**20
