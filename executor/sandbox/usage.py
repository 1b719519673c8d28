"""What a session uses: memory of all its processes, memory without a process, and the bytes of its folders."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from executor.sandbox.processes import ProcessTree

_KIB: Final = 1024
_BLOCK: Final = 512
_SOCKET: Final = 208 * _KIB
"""Bytes that may lie unread in one socket (net.core.wmem_default); no process is charged for them."""
_FREE_SOCKETS: Final = 128
_SHARED_MEMORY: Final = (b"/memfd:", b"/dev/zero", b"/dev/shm/", b"/SYSV")
_MAX_DEPTH: Final = 200
"""Folders nested deeper than this count as too many files: every level holds a descriptor of ours."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes of memory, bytes on disk of files that were unlinked but are open, and counts.

    `opaque`: processes that hide from the leader, which nothing honest does where Landlock is on: kill them.
    `at_most`: `memory` counts pages that processes share once for each, as those hide what they share.
    """

    memory: int
    unlinked: int
    processes: int
    threads: int
    descriptors: int
    opaque: tuple[int, ...] = ()
    at_most: bool = False


@dataclass(frozen=True, slots=True)
class Unlinked:
    """A file without a name, known by its inode."""

    inode: int
    on_disk: bool


class Meter:
    """Measures one session, cheaply first: what many processes share is told apart only when the sum looks too high.

    Unlinked files of `folders` count as disk, all others as memory. `shared_memory` is the session's own /dev/shm.
    Without `open_workers`, as where there is no Landlock, workers are hidden on purpose and none is opaque.
    """

    def __init__(
        self,
        tree: ProcessTree,
        *,
        memory_limit: int,
        folders: tuple[str, ...],
        shared_memory: str | None = None,
        open_workers: bool = True,
    ) -> None:
        self._tree = tree
        self._limit = memory_limit
        self._folders = tuple(folder + "/" for folder in folders)
        self._shared_memory = shared_memory
        self._exact, self._rough = 0, 0
        self._at_most = False
        self._open = open_workers
        self._hidden: dict[Unlinked, int] = {}
        self._last: tuple[list[int], int, int] = [], 0, 0

    def read(self, *, deep: bool = False) -> Usage:
        """Measure now: about 0.1 ms a process. `deep`, 1 ms, about every tenth time, finds what is only mapped."""
        members = self._tree.members()
        rough = private = threads = 0
        for pid in members:
            status = self._status(pid)
            own = status.get(b"RssAnon", 0) + status.get(b"VmSwap", 0)
            tables = status.get(b"VmPTE", 0) + status.get(b"HugetlbPages", 0)
            private += tables
            rough += own + tables
            threads += self._tree.threads_of(pid)
        files, sockets, descriptors, opaque = self._open_files(members)
        if deep:
            self._hidden = {}
            for pid in members:
                self._add_mapped(pid, self._hidden)
        for key, size in self._hidden.items():
            files[key] = max(files.get(key, 0), size)
        unlinked = sum(size for file, size in files.items() if file.on_disk)
        outside = sum(size for file, size in files.items() if not file.on_disk)
        outside += max(0, sockets - _FREE_SOCKETS) * _SOCKET + self._shm()
        self._last = members, private, outside
        memory = self._memory(members, rough, private, outside)
        opaque = opaque if self._open else []
        return Usage(memory, unlinked, len(members), threads, descriptors, tuple(opaque), self._at_most)

    def weight(self) -> int:
        """Bytes that the session adds to all others, as it was read last: pages that it was forked with and shares with
        the zygote, some 80 MB, count by its share. A process that hides what it shares counts whole."""
        members, private, outside = self._last
        return sum(self._anonymous(pid)[0] for pid in members) + private + outside

    def _memory(self, members: list[int], rough: int, private: int, outside: int) -> int:
        """The sum of what processes hold, without counting shared pages twice where that matters."""
        if self._exact == 0 or rough < self._rough:
            self._exact = self._rough = rough
        guess = self._exact + rough - self._rough
        if guess + outside <= self._limit:
            return guess + outside
        exact, hidden = private, 0
        for pid in members:
            size, hides = self._anonymous(pid)
            exact += size
            hidden += hides
        self._at_most = hidden > 1
        self._exact, self._rough = min(exact, rough), rough
        return self._exact + outside

    def _status(self, pid: int) -> dict[bytes, int]:
        """Sizes of /proc/<pid>/status in bytes, by name."""
        found = {}
        for line in self._tree.read(f"{pid}/status", 4096).splitlines():
            if line.endswith(b" kB"):
                name, _, value = line.partition(b":")
                found[name] = int(value[:-3]) * _KIB
        return found

    def _anonymous(self, pid: int) -> tuple[int, bool]:
        """Anonymous memory of a process, and whether it hides which of it is shared, so that all of it counts."""
        if (proportional := self._proportional(pid)) is not None:
            return proportional, False
        # what a process shares with its parent may be all or nothing, which only the parent's fork knew
        whole = self._status(pid).get(b"RssAnon", 0)
        return whole, whole > 0

    def _proportional(self, pid: int) -> int | None:
        """Anonymous memory of a process, its share where pages are shared; None when that cannot be read."""
        text = self._tree.read(f"{pid}/smaps_rollup")
        total, known = 0, False
        for line in text.splitlines():
            if line.startswith((b"Pss_Anon:", b"SwapPss:")):
                total += int(line.split()[1]) * _KIB
                known = True
        return total if known else None

    def _open_files(self, members: list[int]) -> tuple[dict[Unlinked, int], int, int, list[int]]:
        """Bytes of unlinked open files, number of sockets and of descriptors, and who hides."""
        files: dict[Unlinked, int] = {}
        sockets: set[int] = set()
        descriptors = 0
        opaque = []
        for pid in members:
            try:
                names = self._tree.names(f"{pid}/fd")
            except PermissionError:
                opaque.append(pid)
                continue
            descriptors += len(names)
            for name in names:
                with suppress(OSError):
                    found = os.stat(f"{pid}/fd/{name}", dir_fd=self._tree.proc)
                    if stat.S_ISSOCK(found.st_mode):
                        sockets.add(found.st_ino)
                    elif found.st_nlink == 0 and stat.S_ISREG(found.st_mode):
                        place = os.readlink(f"{pid}/fd/{name}", dir_fd=self._tree.proc)
                        files[self._unlinked(found.st_ino, place)] = found.st_blocks * _BLOCK
        return files, len(sockets), descriptors, opaque

    def _unlinked(self, inode: int, place: str) -> Unlinked:
        return Unlinked(inode, on_disk=place.startswith(self._folders))

    def _add_mapped(self, pid: int, files: dict[Unlinked, int]) -> None:
        """Add shared memory and unlinked files that are mapped, at the length of the mapping: no more can be known."""
        sizes: dict[Unlinked, int] = {}
        for line in self._tree.read_all(f"{pid}/maps").splitlines():
            if not line.endswith(b"(deleted)"):
                continue
            span, _, _, _, inode, place = line.split(None, 5)
            file = self._unlinked(int(inode), os.fsdecode(place))
            # libraries of the host that were upgraded under us are nobody's
            if file.on_disk or place.startswith(_SHARED_MEMORY):
                start, _, end = span.partition(b"-")
                sizes[file] = sizes.get(file, 0) + int(end, 16) - int(start, 16)
        for file, size in sizes.items():
            files[file] = max(files.get(file, 0), size)

    def _shm(self) -> int:
        if self._shared_memory is None:
            return 0
        try:
            found = os.statvfs(self._shared_memory)
        except OSError:
            return 0
        return (found.f_blocks - found.f_bfree) * found.f_frsize


class FolderMeter:
    """Bytes and number of files below some folders, walked in small steps so that a leader's loop is never held up."""

    def __init__(self, folders: tuple[str, ...], proc: int) -> None:
        self._folders = folders
        self._proc = proc
        self._walk: Iterator[int] | None = None
        self._counting = [0, 0]
        self.bytes = 0
        self.files = 0

    def step(self, entries: int = 2000) -> bool:
        """Look at up to so many entries; True when a walk is done and `bytes` and `files` are new.

        While a walk runs they rise with it: a folder that is over its limit is seen before the walk ends.
        """
        if self._walk is None:
            self._walk, self._counting = self._entries(), [0, 0]
        for _ in range(entries):
            size = next(self._walk, None)
            if size is None:
                self.bytes, self.files = self._counting
                self._walk = None
                return True
            self._counting[0] += size
            self._counting[1] += 1
        self.bytes, self.files = max(self.bytes, self._counting[0]), max(self.files, self._counting[1])
        return False

    def full(self) -> None:
        """Walk to the end now; for tests and for a session at rest."""
        while not self.step():
            pass

    def _entries(self) -> Iterator[int]:
        """Bytes on disk of everything below, by handles: no link is followed, no name is long, no depth is too deep."""
        for folder in self._folders:
            seen: set[tuple[int, int]] = set()
            with suppress(OSError):
                top = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                yield from self._below(top, seen)

    def _below(self, top: int, seen: set[tuple[int, int]]) -> Iterator[int]:
        stack: list[tuple[int, Iterator[os.DirEntry[str]]]] = [(top, iter(()))]
        try:
            stack = [(top, self._scan(top))]
            while stack:
                fd, entries = stack[-1]
                entry = next(entries, None)
                if entry is None:
                    os.close(fd)
                    stack.pop()
                    continue
                try:
                    found = os.stat(entry.name, dir_fd=fd, follow_symlinks=False)
                except OSError:
                    continue
                if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
                    if (found.st_dev, found.st_ino) in seen:
                        yield 0
                        continue
                    seen.add((found.st_dev, found.st_ino))
                yield found.st_blocks * _BLOCK
                if stat.S_ISDIR(found.st_mode):
                    if len(stack) >= _MAX_DEPTH:
                        self._counting[1] += 1_000_000
                        continue
                    with suppress(OSError):
                        child = self._enter(entry.name, fd)
                        stack.append((child, self._scan(child)))
        finally:
            for fd, _ in stack:
                with suppress(OSError):
                    os.close(fd)

    def _enter(self, name: str, fd: int) -> int:
        flags = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(name, flags | os.O_RDONLY, dir_fd=fd)
        except PermissionError:
            # a guest may not lock us out of what it fills; by handle, as the name may be a link by now
            handle = os.open(name, flags | os.O_PATH, dir_fd=fd)
        try:
            os.chmod(f"self/fd/{handle}", 0o700, dir_fd=self._proc)
            return os.open(f"self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._proc)
        finally:
            os.close(handle)

    @staticmethod
    def _scan(fd: int) -> Iterator[os.DirEntry[str]]:
        # not os.scandir's own closing: the handle is ours until the folder is done
        with os.scandir(fd) as entries:
            yield from entries
