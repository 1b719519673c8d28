"""Medium: the few things that the store asks of a disk or volume, all of which every kind of volume can do.

Names are written once, as a whole and from their start on; nothing is renamed, locked, rewritten or appended to later.
All calls block and raise OSError; `executor.store.calls` keeps them off the event loop.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Protocol

_NOT_SYNCED = {errno.EINVAL, errno.ENOTSUP, errno.ENOSYS}
"""What volumes answer that know no fsync."""


class Writer(Protocol):
    """A new name that is being written."""

    def write(self, data: bytes) -> None:
        """Add all of `data`."""

    def close(self) -> None:
        """Make what was written lasting. Raises OSError where that is not sure."""

    def abandon(self) -> None:
        """Let go of it without any promise. Idempotent, and may follow `close`."""


class Reader(Protocol):
    """A name that is being read; on a local disk it can be read on when the name has been deleted."""

    size: int
    """Bytes that it had when it was opened."""

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on; fewer only at the end."""

    def close(self) -> None:
        """Let go of it. Idempotent."""


class Medium(Protocol):
    """Where snapshots lie: names such as `ab/name`, with one folder before them."""

    def make(self, folder: str) -> None:
        """See to it that a folder is there."""

    def names(self, folder: str) -> list[str]:
        """What the folder holds, without the folder's own name; nothing where it does not exist."""

    def create(self, name: str) -> Writer:
        """Begin a name that does not exist yet. Raises FileExistsError."""

    def open(self, name: str) -> Reader:
        """Raises FileNotFoundError."""

    def modified(self, name: str) -> float:
        """When it was written, by the medium's clock, in seconds since 1970."""

    def delete(self, name: str) -> None:
        """Delete a name; nothing happens where it does not exist."""


class Folder:
    """A folder of a disk or of an attached volume; files are 0600 and folders 0700."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def make(self, folder: str) -> None:
        """See Medium."""
        # one by one, as the mode of parents is not `mkdir`'s to set
        for path in (self._root, self._root / folder):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, folder: str) -> list[str]:
        """See Medium."""
        try:
            return [entry.name for entry in (self._root / folder).iterdir()]
        except FileNotFoundError:
            return []

    def create(self, name: str) -> Writer:
        """See Medium."""
        path = self._root / name
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return _FileWriter(os.open(path, flags, 0o600), path.parent)
        except FileNotFoundError:
            self.make(str(Path(name).parent))
            return _FileWriter(os.open(path, flags, 0o600), path.parent)

    def open(self, name: str) -> Reader:
        """See Medium."""
        return _FileReader(os.open(self._root / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK))

    def modified(self, name: str) -> float:
        """See Medium."""
        return (self._root / name).lstat().st_mtime

    def delete(self, name: str) -> None:
        """See Medium."""
        (self._root / name).unlink(missing_ok=True)


class _Handle:
    """A descriptor that is closed once, at the latest when nobody refers to it any more.

    Never under a call that still uses it, which may hang: the number could by then be another file's.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._in_use = threading.Lock()

    def release(self) -> None:
        if self._in_use.acquire(blocking=False):
            try:
                self._close()
            finally:
                self._in_use.release()

    def _close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        with suppress(OSError):
            self._close()


class _FileWriter(_Handle):
    def __init__(self, fd: int, folder: Path) -> None:
        super().__init__(fd)
        self._folder = folder

    def write(self, data: bytes) -> None:
        with self._in_use:
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]

    def close(self) -> None:
        with self._in_use:
            _sync(self._fd)
            folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                _sync(folder)
            finally:
                os.close(folder)
            self._close()

    def abandon(self) -> None:
        with suppress(OSError):
            self.release()


class _FileReader(_Handle):
    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.size = os.fstat(fd).st_size

    def read(self, offset: int, length: int) -> bytes:
        with self._in_use:
            parts = []
            while length > 0:
                data = os.pread(self._fd, length, offset)
                if not data:
                    break
                parts.append(data)
                offset += len(data)
                length -= len(data)
            return b"".join(parts)

    def close(self) -> None:
        self.release()


def _sync(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NOT_SYNCED:
            raise
