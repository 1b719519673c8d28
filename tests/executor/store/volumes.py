"""Real folders that stand for sessions, and volumes that behave as badly as volumes do."""

import errno
import os
import stat
import threading
import time
from pathlib import Path

from executor.parcel import PIECE, Entry, Unpacker
from executor.store import Folder, Store

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


class Room:
    """A session's folder: what it holds, its parcels, and what came back out of one."""

    def __init__(self, root):
        self.root = Path(root)
        self.root.mkdir(exist_ok=True)
        self.asked = []

    def write(self, path, data, mode=None):
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        if mode is not None:
            target.chmod(mode)

    def __iter__(self):
        for folder, folders, files in os.walk(self.root):
            for name in sorted([*folders, *files]):
                path = os.path.join(folder, name)
                yield os.path.relpath(path, self.root), os.lstat(path)

    def tree(self):
        tree = {}
        for path, info in self:
            kind, mode = KINDS[stat.S_IFMT(info.st_mode)], stat.S_IMODE(info.st_mode) & 0o777
            rest = (info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
            tree[path] = (kind, mode, *(rest if kind != "folder" else (0, 0, 0, 0)))
        return tree

    async def changed(self, paths):
        self.asked.append(list(paths))
        for path in paths:
            try:
                info = os.lstat(self.root / path)
                kind = KINDS[stat.S_IFMT(info.st_mode)]
                content = b""
                if kind == "file":
                    content = None
                elif kind == "link":
                    content = os.fsencode(os.readlink(self.root / path))
            except FileNotFoundError:
                continue
            mode, modified = stat.S_IMODE(info.st_mode), info.st_mtime_ns if kind != "folder" else 0
            size = len(content) if content is not None else info.st_size
            yield Entry(tuple(path.split("/")), kind, mode, modified, size).head() + (content or b"")
            if content is None:
                with (self.root / path).open("rb") as file:
                    while data := file.read(PIECE):
                        yield data

    def content(self):
        """What a restored folder must be equal in."""
        found = {}
        for path, info in self:
            kind = KINDS[stat.S_IFMT(info.st_mode)]
            full = self.root / path
            data = full.read_bytes() if kind == "file" else os.readlink(full) if kind == "link" else None
            found[path] = (kind, None if kind == "link" else stat.S_IMODE(info.st_mode), data)
        return found

    async def unpack(self, parcel):
        unpacker, entries = Unpacker(), []
        async for piece in parcel:
            for item in unpacker.feed(piece):
                if isinstance(item, Entry):
                    entries.append([item, bytearray()])
                else:
                    entries[-1][1].extend(item)
        unpacker.close()
        for entry, content in entries:
            target = self.root / "/".join(entry.parts)
            assert len(content) == entry.size
            if entry.kind == "folder":
                target.mkdir()
            elif entry.kind == "link":
                target.symlink_to(os.fsdecode(bytes(content)))
                os.utime(target, ns=(entry.modified, entry.modified), follow_symlinks=False)
            else:
                with target.open("xb") as file:
                    file.write(content)
                target.chmod(entry.mode)
                os.utime(target, ns=(entry.modified, entry.modified))
        for entry, _ in reversed(entries):
            if entry.kind == "folder":
                (self.root / "/".join(entry.parts)).chmod(entry.mode)
        return self


class Killed(BaseException):
    """The process ends here: nothing after it happens."""


class Volume:
    """A medium on a real folder with every fault that one has.

    `trouble(operation, name, count)` is called before each operation and may raise; once it raised Killed, everything
    does. `cut` is how much of the write at which it happened is still done. `late` seconds pass until other stores,
    and this one, see a new name or its content, or no longer see and read what was deleted.
    """

    def __init__(self, root):
        self.inner = Folder(root)
        self.root = root
        self.trouble = lambda operation, name, count: None
        self.cut = 0.5
        self.late = 0.0
        self.dead = False
        self.count = 0
        self.operations = []
        self.made, self.gone, self.contents, self.lock = {}, {}, {}, threading.Lock()

    def _begin(self, operation, name):
        with self.lock:
            if self.dead:
                raise Killed
            self.count += 1
            self.operations.append((operation, name))
            count = self.count
        try:
            self.trouble(operation, name, count)
        except Killed:
            self.dead = True
            raise

    def make(self, folder):
        self._begin("make", folder)
        self.inner.make(folder)

    def names(self, folder):
        self._begin("names", folder)
        now = time.monotonic()
        there = {name for name in self.inner.names(folder) if self.made.get(f"{folder}/{name}", 0) + self.late <= now}
        ghosts = {name for name, at in self.gone.items() if at + self.late > now and name.startswith(f"{folder}/")}
        return sorted(there | {name.split("/")[1] for name in ghosts})

    def create(self, name):
        self._begin("create", name)
        self.made[name] = time.monotonic()
        return Writing(self, name, self.inner.create(name))

    def open(self, name):
        self._begin("open", name)
        if name in self.gone and self.gone[name] + self.late > time.monotonic():
            return Reading(self, name, Ghost(self.contents[name]))
        if self.made.get(name, 0) + self.late > time.monotonic():
            raise FileNotFoundError(errno.ENOENT, "not yet", name)
        return Reading(self, name, self.inner.open(name))

    def modified(self, name):
        self._begin("modified", name)
        return self.inner.modified(name)

    def delete(self, name):
        self._begin("delete", name)
        if self.late:
            self.gone[name], self.contents[name] = time.monotonic(), (self.root / name).read_bytes()
        self.inner.delete(name)


class Writing:
    def __init__(self, volume, name, inner):
        self.volume, self.name, self.inner = volume, name, inner

    def write(self, data):
        try:
            self.volume._begin("write", self.name)
        except (OSError, Killed):
            if not getattr(self, "broken", False):
                self.broken = True
                self.inner.write(data[: int(len(data) * self.volume.cut)])
            raise
        self.inner.write(data)

    def close(self):
        self.volume._begin("close", self.name)
        self.inner.close()

    def abandon(self):
        self.inner.abandon()


class Reading:
    def __init__(self, volume, name, inner):
        self.volume, self.name, self.inner, self.size = volume, name, inner, inner.size

    def read(self, offset, length):
        self.volume._begin("read", self.name)
        return self.inner.read(offset, length)

    def close(self):
        self.inner.close()


class Ghost:
    """What was deleted, and can still be read."""

    def __init__(self, content):
        self.content, self.size = content, len(content)

    def read(self, offset, length):
        return self.content[offset : offset + length]

    def close(self):
        pass


class Keeper:
    """Opens stores on one folder, one after the other or several at once, and collects their faults."""

    def __init__(self, folder):
        self.folder = folder
        self.stores = []
        self.faults = []

    async def __call__(self, medium=None, **options):
        options = {"max_bytes": 10**9, "settle": 0.0, "patience": 10.0} | options
        store = Store(self.folder, medium=medium, publish=self.faults.append, **options)
        self.stores.append(store)
        self.records = {record.session_id: record for record in await store.open()}
        return store

    def files(self, suffix=""):
        return sorted(path for path in self.folder.glob("??/*") if path.name.endswith(suffix))


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
    assert volume.count - start > 10
    return start, volume.count - start
