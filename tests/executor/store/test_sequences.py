"""Any sequence of edits, saves, failures, kills, restarts and loads, beside a model of what may come back."""

import errno
import os

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.errors import NoSnapshot, StoreFailed
from tests.executor.store.volumes import Keeper, Killed, Room, Volume


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
        except NoSnapshot:
            found = None  # also where the very first save was cut off: something is there, but nothing whole
        else:
            self.numbers += 1
            found = (await Room(self.root / f"out{self.numbers}").unpack(parcel)).content()
            assert snapshot.damaged == []
        assert found in self.possible[which]
        self.possible[which] = [found]
