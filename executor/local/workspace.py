"""Workspace: a session's folder, touched only through directory handles, because the guest owns what is inside it.

No name is ever resolved as a path: each component is opened relative to its parent's handle without following links,
and what is opened must be a regular file with one name. So no symlink, hard link, fifo, device or swap in mid-walk
leads out of the folder or makes us wait.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from executor.errors import FileRefused
from executor.local.paths import MAX_DEPTH, PRIVATE, printable, quoted, refusal, split_path
from executor.local.removal import remove_tree
from executor.results import FileInfo

_SKIPPED = frozenset({"node_modules", "__pycache__"})
QUICK_WALK = 2_000
"""Files and folders that are looked at in about 5 ms."""

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Snapshot = dict[str, tuple[int, int, int]]
"""Path to (modification time in ns, size in bytes, inode): enough to tell a changed file."""


@dataclass(slots=True)
class Upload:
    """A file being written: it gets its name only when it is complete."""

    fd: int
    folder: int
    temporary: str
    path: str
    size: int = 0


class Workspace:
    """The folder at `root` (made if need be), which holds at most `max_bytes` and `max_files`.

    `proc` is a handle on a /proc in which we are, for a process whose own /proc is another's.

    Everything here may block on the disk: it belongs into a session's own process, not on the server's event loop.
    """

    def __init__(self, root: str, *, max_bytes: int, max_files: int, proc: int | None = None) -> None:
        self.root = root
        self.proc = os.open("/proc", _DIR) if proc is None else proc
        self.max_bytes = max_bytes
        self.max_files = max_files
        for name in ("", *PRIVATE, ".packages/python", ".packages/node", ".packages/node/node_modules"):
            with suppress(FileExistsError):
                os.mkdir(f"{root}/{name}" if name else root, 0o700)
        self.handle = os.open(root, _DIR)
        self.seen: Snapshot = {}

    # Reading

    def open_file(self, path: str) -> int:
        """A read-only descriptor of a regular file. Raises NoSuchFile or FileRefused."""
        with self._parent(path) as (folder, name):
            try:
                fd = os.open(name, _READ, dir_fd=folder)
            except OSError as error:
                raise refusal(path, error) from None
        try:
            info = os.fstat(fd)
            if stat.S_ISDIR(info.st_mode):
                raise FileRefused(f"{quoted(path)} is a folder. List it with list_files, then name a file in it.")
            if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
                raise FileRefused(f"{quoted(path)} is not an ordinary file (a device, a pipe or a hard link).")
        except FileRefused:
            os.close(fd)
            raise
        return fd

    def info(self, path: str) -> FileInfo:
        """Size and time of a regular file. Raises NoSuchFile or FileRefused."""
        fd = self.open_file(path)
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        return FileInfo("/".join(split_path(path)), found.st_size, found.st_mtime)

    def scan(self) -> Snapshot:
        """Every visible regular file: hidden names, caches and what is no ordinary file are left out."""
        found: Snapshot = {}
        for prefix, entry, info in self._walk(hidden=False):
            if stat.S_ISREG(info.st_mode):
                found[prefix + entry.name] = info.st_mtime_ns, info.st_size, info.st_ino
        return found

    def list_files(self) -> list[FileInfo]:
        """The visible files, sorted by path."""
        return [
            FileInfo(printable(path), size, modified / 1e9) for path, (modified, size, _) in sorted(self.scan().items())
        ]

    def changes(self) -> list[FileInfo]:
        """What is new or changed since the last call, sorted by path."""
        now = self.scan()
        changed = [
            FileInfo(printable(path), state[1], state[0] / 1e9, "changed" if path in self.seen else "new")
            for path, state in now.items()
            if self.seen.get(path) != state
        ]
        self.seen = now
        changed.sort(key=lambda info: info.path)
        return changed

    def usage(self) -> tuple[int, int]:
        """(bytes on disk, number of files and folders), hidden ones included; stops counting at twice the limits."""
        size = count = 0
        for _, _, info in self._walk(hidden=True):
            count += 1
            # allocated blocks, not length: a sparse giant costs what it occupies
            size += info.st_blocks * 512
            if count > 2 * self.max_files or size > 2 * self.max_bytes:
                break
        return size, count

    def fingerprint(self) -> int | None:
        """What all that is in the folder, hidden or not, looks like: the same number where nothing has changed. None
        where there is so much that to look at it would be felt."""
        found: list[tuple[str | int, ...]] = []
        for prefix, entry, info in self._walk(hidden=True):
            if len(found) >= QUICK_WALK:
                return None
            found.append(
                (prefix + entry.name, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns, info.st_ino)
            )
        return hash(tuple(sorted(found)))

    # Writing

    def begin_upload(self, path: str) -> Upload:
        """Start a file that will be named `path`; its folders are made."""
        parts = split_path(path)
        size, count = self.usage()
        if count + len(parts) > self.max_files:
            raise FileRefused(f"The session's folder is full: it holds {count:,} of {self.max_files:,} files.")
        if size >= self.max_bytes:
            raise FileRefused(self._full(size))
        with self._parent(path, make=True) as (folder, name):
            self._must_not_be_folder(folder, name, path)
            temporary = f".upload-{secrets.token_hex(8)}"
            try:
                fd = os.open(temporary, _WRITE, 0o600, dir_fd=folder)
            except OSError as error:
                raise refusal(path, error) from None
            return Upload(fd, os.dup(folder), temporary, "/".join(parts))

    def write(self, upload: Upload, data: bytes, *, limit: int) -> None:
        """Append to an upload of at most `limit` bytes. On FileRefused the upload is gone."""
        try:
            if upload.size + len(data) > limit:
                raise FileRefused(f"{quoted(upload.path)} is over the limit of {limit:,} bytes for one file.")
            if upload.size + len(data) > self.max_bytes:
                raise FileRefused(self._full(upload.size))
            view = memoryview(data)
            while view:
                view = view[os.write(upload.fd, view) :]
            upload.size += len(data)
        except OSError as error:
            self.abort_upload(upload)
            raise refusal(upload.path, error) from None
        except FileRefused:
            self.abort_upload(upload)
            raise

    def finish_upload(self, upload: Upload) -> FileInfo:
        """Give the complete file its name, replacing a file of that name as a whole."""
        name = upload.path.rsplit("/", 1)[-1]
        try:
            size, _ = self.usage()
            if size > self.max_bytes:
                raise FileRefused(self._full(size))
            self._must_not_be_folder(upload.folder, name, upload.path)
            os.rename(upload.temporary, name, src_dir_fd=upload.folder, dst_dir_fd=upload.folder)
            info = os.fstat(upload.fd)
        except OSError as error:
            self.abort_upload(upload)
            raise refusal(upload.path, error) from None
        except FileRefused:
            self.abort_upload(upload)
            raise
        os.close(upload.fd)
        os.close(upload.folder)
        # a file that was put in is not a file that the next cell made
        self.seen[upload.path] = info.st_mtime_ns, info.st_size, info.st_ino
        return FileInfo(upload.path, info.st_size, info.st_mtime)

    def abort_upload(self, upload: Upload) -> None:
        """Drop what was written."""
        with suppress(OSError):
            os.unlink(upload.temporary, dir_fd=upload.folder)
        for fd in (upload.fd, upload.folder):
            with suppress(OSError):
                os.close(fd)

    def create(self, path: str) -> int:
        """A descriptor to write a new file of ours (a log) with. Raises FileRefused where the guest is in the way."""
        with self._parent(path, make=True) as (folder, name):
            try:
                return os.open(name, _WRITE, 0o600, dir_fd=folder)
            except OSError as error:
                raise refusal(path, error) from None

    def move_file(self, path: str, target: str) -> FileInfo:
        """Rename a file; `target` must not exist, its folders are made."""
        os.close(self.open_file(path))
        with self._parent(path) as (folder, name), self._parent(target, make=True) as (to_folder, to_name):
            try:
                os.stat(to_name, dir_fd=to_folder, follow_symlinks=False)
            except FileNotFoundError:
                pass
            else:
                raise FileRefused(f"{quoted(target)} exists already. Delete it first, or choose another name.")
            try:
                os.rename(name, to_name, src_dir_fd=folder, dst_dir_fd=to_folder)
            except OSError as error:
                raise refusal(target, error) from None
        return self.info(target)

    def delete(self, path: str) -> None:
        """Delete a file, a link, or a folder with all that it holds."""
        with self._parent(path) as (folder, name):
            try:
                info = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    trash = f".tmp/trash-{secrets.token_hex(8)}"
                    os.rename(name, trash, src_dir_fd=folder, dst_dir_fd=self.handle)
                    remove_tree(trash, parent=self.handle, proc=self.proc)
                else:
                    os.unlink(name, dir_fd=folder)
            except OSError as error:
                raise refusal(path, error) from None

    def remove(self) -> None:
        """Delete the whole folder."""
        os.close(self.handle)
        remove_tree(self.root, proc=self.proc)

    # Walking

    @contextmanager
    def _parent(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        *folders, name = split_path(path)
        fd = os.dup(self.handle)
        try:
            for folder in folders:
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(folder, 0o700, dir_fd=fd)
                try:
                    inner = os.open(folder, _DIR, dir_fd=fd)
                except OSError as error:
                    raise refusal(path, error, folder=True) from None
                os.close(fd)
                fd = inner
            yield fd, name
        finally:
            os.close(fd)

    def _walk(self, *, hidden: bool) -> Iterator[tuple[str, os.DirEntry[str], os.stat_result]]:
        """(prefix, entry, its lstat) of what is in the folder, at most twice `max_files`, at most MAX_DEPTH deep."""
        folders = [""]
        budget = 2 * self.max_files
        while folders:
            prefix = folders.pop()
            with suppress(OSError):
                fd = self._descend(prefix)
                try:
                    with os.scandir(fd) as entries:
                        for entry in entries:
                            budget -= 1
                            if budget < 0:
                                return
                            if not hidden and (entry.name.startswith(".") or entry.name in _SKIPPED):
                                continue
                            try:
                                info = entry.stat(follow_symlinks=False)
                            except OSError:
                                continue  # gone between the two calls
                            yield prefix, entry, info
                            if stat.S_ISDIR(info.st_mode) and prefix.count("/") < MAX_DEPTH:
                                folders.append(f"{prefix}{entry.name}/")
                finally:
                    os.close(fd)

    def _descend(self, prefix: str) -> int:
        fd = os.open(".", _DIR, dir_fd=self.handle)
        for name in prefix.split("/")[:-1]:
            try:
                inner = os.open(name, _DIR, dir_fd=fd)
            finally:
                os.close(fd)
            fd = inner
        return fd

    def _must_not_be_folder(self, folder: int, name: str, path: str) -> None:
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                raise FileRefused(f"{quoted(path)} is a folder. Choose another name.")

    def _full(self, size: int) -> str:
        return (
            f"The session's folder is full: {size / 2**20:.0f} of {self.max_bytes / 2**20:.0f} MiB are used. "
            "Delete files that are no longer needed."
        )
