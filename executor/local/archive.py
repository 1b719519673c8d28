"""Archive: a whole workspace as a list of what is in it, as a parcel, and back out of one.

The guest owns the folder, and may be at work in it meanwhile, so as everywhere names are resolved one at a time below
directory handles and no link is followed. What changes while it is read is read again by the next snapshot, which
knows it by its change time.
"""

from __future__ import annotations

import json
import os
import stat
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress

from executor.errors import BackendFailed, FileRefused
from executor.local.paths import refusal
from executor.local.workspace import Workspace
from executor.parcel import MAX_DEPTH, MODES, PIECE, Entry, Kind, ParcelError, Unpacker, in_pieces

TRASH = (".tmp/trash-", ".tmp/install-")
"""What is about to be deleted, or not yet complete, is nobody's."""

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS: dict[int, Kind] = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}


class Source:
    """Bytes that are asked for piece by piece, one piece read ahead: so the last one is known to be it."""

    def __init__(self, pieces: Generator[bytes, None, None]) -> None:
        self._pieces = pieces
        self._ahead = next(pieces, b"")

    def next(self) -> tuple[bytes, bool]:
        """The next piece, empty only where there is none, and whether there are more."""
        piece, self._ahead = self._ahead, next(self._pieces, b"")
        return piece, bool(self._ahead)

    def close(self) -> None:
        """Let go of what is open. Idempotent."""
        self._pieces.close()


def listing(workspace: Workspace) -> Source:
    """The whole folder, a JSON line for each entry: path, kind, mode, size, modification and change time, inode."""
    return Source(in_pieces(_lines(workspace)))


def pack(workspace: Workspace, paths: Sequence[str]) -> Source:
    """Those of `paths` that are there, as a parcel."""
    return Source(in_pieces(_packed(workspace, paths)))


def _lines(workspace: Workspace) -> Iterator[bytes]:
    shared: list[tuple[str, os.stat_result]] = []
    links: Counter[int] = Counter()
    for path, info in _everything(workspace):
        kind = _KINDS.get(stat.S_IFMT(info.st_mode))
        if kind is None:
            continue
        if kind == "file" and info.st_nlink != 1:
            # a second name for something: ours, or a way into somebody else's folder
            links[info.st_ino] += 1
            shared.append((path, info))
            continue
        yield _line(path, kind, info)
    for path, info in shared:
        if links[info.st_ino] == info.st_nlink:
            yield _line(path, "file", info)


def _everything(workspace: Workspace) -> Iterator[tuple[str, os.stat_result]]:
    """(path, its lstat) of all that is in the folder, a folder before what it holds; at most twice `max_files`."""
    folders: list[tuple[str, ...]] = [()]
    budget = 2 * workspace.max_files
    while folders:
        parts = folders.pop()
        with suppress(OSError):
            fd = _descend(workspace, parts)
            try:
                with os.scandir(fd) as entries:
                    names = [entry.name for entry in entries]
                for name in names:
                    budget -= 1
                    path = "/".join((*parts, name))
                    if budget < 0 or path.startswith(TRASH) or len(parts) >= MAX_DEPTH:
                        continue
                    with suppress(OSError):
                        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
                        yield path, info
                        if stat.S_ISDIR(info.st_mode):
                            folders.append((*parts, name))
            finally:
                os.close(fd)


def _descend(workspace: Workspace, parts: Sequence[str], *, make: bool = False) -> int:
    """A handle of a folder of the workspace. Raises OSError."""
    fd = open_inside(".", _DIR, workspace.handle, workspace)
    for part in parts:
        try:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=fd)
            inner = open_inside(part, _DIR, fd, workspace)
        finally:
            os.close(fd)
        fd = inner
    return fd


@contextmanager
def parent_of(workspace: Workspace, parts: Sequence[str], *, make: bool = False) -> Iterator[tuple[int, str]]:
    """A handle of the folder that something is in, and its name there; `make` makes folders that are missing.

    Raises OSError.
    """
    fd = _descend(workspace, parts[:-1], make=make)
    try:
        yield fd, parts[-1]
    finally:
        os.close(fd)


def open_inside(name: str, flags: int, folder: int, workspace: Workspace) -> int:
    """As os.open, also where the mode forbids it to the owner, which we are: it is put back at once."""
    try:
        return os.open(name, flags, dir_fd=folder)
    except PermissionError:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            # by handle: the name may be a link by now
            mode = stat.S_IMODE(os.fstat(handle).st_mode)
            own = f"self/fd/{handle}"
            os.chmod(own, mode | 0o700, dir_fd=workspace.proc)
            try:
                return os.open(own, flags & ~os.O_NOFOLLOW, dir_fd=workspace.proc)
            finally:
                os.chmod(own, mode, dir_fd=workspace.proc)
        finally:
            os.close(handle)


def _line(path: str, kind: Kind, info: os.stat_result) -> bytes:
    mode = stat.S_IMODE(info.st_mode) & MODES
    size = info.st_size if kind != "folder" else 0
    # the times of a folder change with what is in it, which is listed itself
    modified = info.st_mtime_ns if kind != "folder" else 0
    changed, inode = (info.st_ctime_ns, info.st_ino) if kind != "folder" else (0, 0)
    return json.dumps([path, kind, mode, size, modified, changed, inode]).encode() + b"\n"


def _packed(workspace: Workspace, paths: Sequence[str]) -> Iterator[bytes]:
    for path in paths:
        parts = tuple(path.split("/"))
        with suppress(OSError), parent_of(workspace, parts) as (folder, name):
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
            kind = _KINDS.get(stat.S_IFMT(info.st_mode))
            mode = stat.S_IMODE(info.st_mode) & MODES
            if kind == "folder":
                yield Entry(parts, kind, mode).head()
            elif kind == "link":
                target = os.fsencode(os.readlink(name, dir_fd=folder))
                yield Entry(parts, kind, mode, info.st_mtime_ns, len(target)).head() + target
            elif kind == "file":
                yield from _content(parts, open_inside(name, _READ, folder, workspace))


def _content(parts: tuple[str, ...], fd: int) -> Iterator[bytes]:
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            return
        yield Entry(parts, "file", stat.S_IMODE(info.st_mode) & MODES, info.st_mtime_ns, info.st_size).head()
        left = info.st_size
        while left:
            data = os.read(fd, min(PIECE, left))
            if not data:
                # it became shorter; its head has gone out, and its new change time has it read again next time
                data = bytes(min(PIECE, left))
            left -= len(data)
            yield data
    finally:
        os.close(fd)


class Unpacking:
    """A parcel that is put into a workspace.

    Every method but `abort` raises FileRefused where the folder cannot take it, and BackendFailed where it is no
    parcel; after either it is over.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._unpacker = Unpacker()
        self._file = -1
        self._entry = Entry((".",))
        self._link = b""
        self._folders: list[Entry] = []

    def write(self, data: bytes) -> None:
        """Take the next piece of the parcel."""
        try:
            for item in self._unpacker.feed(data):
                if isinstance(item, Entry):
                    self._end_entry()
                    self._begin(item)
                elif self._file >= 0:
                    view = memoryview(item)
                    while view:
                        view = view[os.write(self._file, view) :]
                else:
                    self._link += item
        except OSError as error:
            self.abort()
            raise refusal("/".join(self._entry.parts), error) from None
        except ParcelError as error:
            self.abort()
            raise BackendFailed(f"The snapshot cannot be unpacked: {error}.") from None

    def finish(self) -> None:
        """Complete the last entry, and give folders their permissions, the deepest first."""
        try:
            self._unpacker.close()
            self._end_entry()
            for entry in sorted(self._folders, key=lambda entry: -len(entry.parts)):
                with parent_of(self._workspace, entry.parts) as (folder, name):
                    handle = os.open(name, _DIR, dir_fd=folder)
                    try:
                        os.fchmod(handle, entry.mode)
                    finally:
                        os.close(handle)
        except OSError as error:
            raise refusal("/".join(self._entry.parts), error) from None
        except ParcelError as error:
            raise BackendFailed(f"The snapshot cannot be unpacked: {error}.") from None
        finally:
            self.abort()
        self._workspace.changes()  # what came back is not new to the next cell

    def abort(self) -> None:
        """Let go of what is open. Idempotent."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _begin(self, entry: Entry) -> None:
        self._entry = entry
        if len(entry.parts) > MAX_DEPTH:
            raise FileRefused("A folder of the snapshot nests too deep.")
        with parent_of(self._workspace, entry.parts, make=True) as (folder, name):
            if entry.kind == "folder":
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=folder)
                os.close(os.open(name, _DIR, dir_fd=folder))
                self._folders.append(entry)
            elif entry.kind == "file":
                self._file = os.open(name, _WRITE, 0o600, dir_fd=folder)

    def _end_entry(self) -> None:
        entry = self._entry
        if self._file >= 0:
            os.fchmod(self._file, entry.mode)
            os.utime(self._file, ns=(entry.modified, entry.modified))
            os.close(self._file)
            self._file = -1
        elif entry.kind == "link" and self._link:
            with parent_of(self._workspace, entry.parts, make=True) as (folder, name):
                os.symlink(self._link, name, dir_fd=folder)
                os.utime(name, ns=(entry.modified, entry.modified), dir_fd=folder, follow_symlinks=False)
        self._link = b""
