"""A store on a folder of its own, folders that stand for sessions, and a volume that can misbehave."""

import pytest
import pytest_asyncio

from tests.executor.store.volumes import Keeper, Killed, Room, Volume


@pytest_asyncio.fixture
async def opened(tmp_path):
    keeper = Keeper(tmp_path / "store")
    yield keeper
    for store in keeper.stores:
        await store.aclose()


@pytest.fixture
def room(tmp_path):
    return Room(tmp_path / "room")


@pytest.fixture
def new_room(tmp_path):
    numbers = iter(range(10**6))
    return lambda: Room(tmp_path / f"room{next(numbers)}")


@pytest.fixture
def volume(tmp_path):
    return Volume(tmp_path / "store")


@pytest.fixture
def killed():
    return Killed
