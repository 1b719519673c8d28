"""What goes into a session's folder and out of it, through the line to its leader: whole, and in few steps."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from executor.backend import SessionSpec
from executor.errors import BackendFailed, FileRefused, InvalidRequest
from executor.local import wire
from executor.local.backend import LocalBackend
from executor.local.transfers import MAX_OPEN

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZES = [0, 1, wire.CHUNK - 1, wire.CHUNK, wire.CHUNK + 1, 3 * wire.CHUNK + 5]


async def no_room():
    return False


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(make_settings):
    running = LocalBackend(make_settings(spare_sessions=0, max_upload_mb=1))
    await running.open(lambda event: None, no_room)
    yield running
    await running.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def ref(backend):
    ref = await backend.create(SessionSpec("a-session"))
    yield ref
    await backend.close(ref)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def content(backend, ref, path):
    return b"".join([piece async for piece in backend.get_file(ref, path)])


def names(tree):
    """What lies in a folder, but for what was there from the start."""
    return [path for path in tree if path.startswith((".upload-", ".tmp/")) or not path.startswith(".")]


def steps(backend, ref):
    """How many requests the session has had so far."""
    return backend._connection(ref)._next_request


@pytest.mark.parametrize("step", [1000, wire.CHUNK, 10 * wire.CHUNK])
@pytest.mark.parametrize("size", SIZES)
async def test_a_file_of_any_size_arrives_whole_however_it_comes(backend, ref, size, step):
    data = bytes(number % 251 for number in range(size))
    assert (await backend.put_file(ref, "f", pieces(data, step))).size == size
    assert await content(backend, ref, "f") == data


@pytest.mark.parametrize("size", SIZES)
async def test_a_folder_goes_from_one_session_to_another_as_it_is(backend, ref, size):
    data = bytes(number % 253 for number in range(size))
    await backend.put_file(ref, "deep/er/f", pieces(data, 10_000))
    await backend.put_file(ref, "g", pieces(b"g", 1))
    tree = await backend.tree(ref)
    parcel = [piece async for piece in backend.pack(ref, sorted(tree))]
    other = await backend.create(SessionSpec("another"))
    try:
        await backend.unpack(other, pieces(b"".join(parcel), 7_000))
        assert await content(backend, other, "deep/er/f") == data
        assert {path: entry[:4] for path, entry in (await backend.tree(other)).items()} == {
            path: entry[:4] for path, entry in tree.items()
        }
    finally:
        await backend.close(other)


async def test_what_fits_one_piece_costs_one_answer(backend, ref):
    before = steps(backend, ref)
    await backend.put_file(ref, "f", pieces(b"x" * 1000, 100))
    assert steps(backend, ref) == before + 1
    parcel = [piece async for piece in backend.pack(ref, list(await backend.tree(ref)))]
    assert steps(backend, ref) == before + 3
    await backend.delete_file(ref, "f")
    await backend.unpack(ref, pieces(b"".join(parcel), 100))
    assert steps(backend, ref) == before + 5
    assert await content(backend, ref, "f") == b"x" * 1000


async def test_what_is_refused_leaves_nothing_open(backend, ref):
    for _ in range(MAX_OPEN + 2):
        with pytest.raises(InvalidRequest):
            await backend.put_file(ref, "../out", pieces(b"x", 1))
        with pytest.raises(InvalidRequest):
            await backend.put_file(ref, "../out", pieces(b"x" * (wire.CHUNK + 1), wire.CHUNK))
    await backend.put_file(ref, "f", pieces(b"x" * 3 * wire.CHUNK, wire.CHUNK))
    for _ in range(MAX_OPEN + 2):
        parcel = backend.pack(ref, ["f"])
        assert await anext(parcel)
        await parcel.aclose()
    await backend.put_file(ref, "f", pieces(b"x", 1))
    assert await content(backend, ref, "f") == b"x"


async def test_what_is_refused_in_the_middle_leaves_nothing_and_the_rest_of_it_is_nobodys(backend, ref):
    for _ in range(MAX_OPEN + 2):
        with pytest.raises(FileRefused, match="over the limit"):
            await backend.put_file(ref, "f", pieces(b"x" * (3 << 20), wire.CHUNK))
        with pytest.raises(BackendFailed, match="unpacked"):
            await backend.unpack(ref, pieces(b"no parcel" * wire.CHUNK, wire.CHUNK))
    assert names(await backend.tree(ref)) == []
    await backend.put_file(ref, "f", pieces(b"x", 1))


async def test_what_is_cancelled_lets_go_of_what_it_held(backend, ref):
    await backend.put_file(ref, "f", pieces(b"x" * 3 * wire.CHUNK, wire.CHUNK))

    async def stuck():
        yield b"x" * 2 * wire.CHUNK
        await asyncio.sleep(60)

    async def read_all():
        return [piece async for piece in backend.pack(ref, ["f"])]

    for work in (lambda: backend.put_file(ref, "g", stuck()), read_all, lambda: backend.tree(ref)):
        for number in range(MAX_OPEN + 2):
            task = asyncio.create_task(work())
            for _ in range(1 + number % 4):  # also before the first answer
                await asyncio.sleep(0)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    assert names(await backend.tree(ref)) == ["f"]
    await backend.put_file(ref, "g", pieces(b"x", 1))
    assert b"".join(await read_all()).endswith(b"x" * 3 * wire.CHUNK)


async def test_a_leader_that_dies_in_the_middle_ends_what_goes_in_and_out(backend):
    async def until_killed(ref):
        yield b"x" * wire.CHUNK
        backend._launcher.kill(backend._launched[ref].number)
        while True:
            await asyncio.sleep(0.01)
            yield b"x"

    ref = await backend.create(SessionSpec("dies"))
    with pytest.raises(BackendFailed, match="The session is gone"):
        async with asyncio.timeout(20):
            await backend.put_file(ref, "f", until_killed(ref))
    with pytest.raises(BackendFailed, match="The session is gone"):
        await backend.tree(ref)
    await backend.close(ref)
    assert not backend._ending and ref not in backend._launched


async def test_a_time_that_64_bits_do_not_hold_is_packed_as_the_latest_that_they_do(backend, ref):
    await backend.put_file(ref, "f", pieces(b"x", 1))
    os.utime(backend._launched[ref].folder / "f", (0, 2**34))
    entry = (await backend.tree(ref))["f"]
    parcel = b"".join([piece async for piece in backend.pack(ref, ["f"])])
    assert parcel.endswith(b"fx")
    if entry[3] > 2**63:  # not every file system knows the year 2514
        assert (2**63 - 1).to_bytes(8) in parcel
    assert await content(backend, ref, "f") == b"x"


async def test_a_source_that_fails_leaves_no_file_and_nothing_open(backend, ref):
    async def broken(size):
        yield b"x" * size
        raise RuntimeError("the caller went away")

    for size in (10, 2 * wire.CHUNK):
        for _ in range(MAX_OPEN + 2):
            with pytest.raises(RuntimeError):
                await backend.put_file(ref, "never", broken(size))
    assert names(await backend.tree(ref)) == []
    await backend.put_file(ref, "f", pieces(b"x", 1))
