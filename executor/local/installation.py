"""Installation: a session's packages of one language, taken in by its leader piece by piece and exchanged as a whole.

The guest owns the folder that this works in, so as everywhere names are resolved one at a time below directory handles,
and no link is followed. The new tree grows in the session's private temporary folder; only when it is complete and
within the limits does it take the place of the old one, whatever that is by now.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets

from executor.errors import BackendFailed, FileRefused
from executor.local.removal import remove_tree
from executor.local.workspace import Workspace
from executor.parcel import Entry, ParcelError, Unpacker

PLACES = {"python": (".packages", "python"), "javascript": (".packages", "node", "node_modules")}
"""Where the interpreters of a session look for its packages."""

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Installation:
    """One exchange under way. Every method but `abort` raises ExecutorError or OSError, after which it is over."""

    def __init__(self, workspace: Workspace, language: str) -> None:
        self._workspace = workspace
        *self._folders, self._name = PLACES[language]
        self._unpacker = Unpacker()
        self._bytes, self._files = workspace.usage()
        self._file = -1
        self._staged = f"install-{secrets.token_hex(12)}"
        self._temporary = self._stage = -1
        self._last: tuple[tuple[str, ...], int] = (), -1
        try:
            self._temporary = self._reach(".tmp")
            os.mkdir(self._staged, 0o700, dir_fd=self._temporary)
            self._stage = os.open(self._staged, _DIR, dir_fd=self._temporary)
        except OSError as error:
            self.abort()
            raise self._refusal(error) from None

    def write(self, data: bytes) -> None:
        """Take the next piece of the parcel."""
        try:
            for item in self._unpacker.feed(data):
                if isinstance(item, Entry):
                    self._begin(item)
                else:
                    self._append(item)
        except OSError as error:
            self.abort()
            raise self._refusal(error) from None
        except (ParcelError, FileRefused) as error:
            self.abort()
            raise error if isinstance(error, FileRefused) else BackendFailed(f"Not installed: {error}.") from None

    def finish(self) -> None:
        """Put the new tree into the place of the old one."""
        place = -1
        try:
            self._unpacker.close()
            size, files = self._workspace.usage()
            self._must_fit(size, files)
            place = self._reach(*self._folders)
            old = f"trash-{secrets.token_hex(12)}"
            # a link or a pipe that the guest put there is moved away itself; where it leads to nobody looks
            with contextlib.suppress(FileNotFoundError):
                os.rename(self._name, old, src_dir_fd=place, dst_dir_fd=self._temporary)
            try:
                os.rename(self._staged, self._name, src_dir_fd=self._temporary, dst_dir_fd=place)
            except OSError:
                with contextlib.suppress(OSError):
                    os.rename(old, self._name, src_dir_fd=self._temporary, dst_dir_fd=place)
                raise
            remove_tree(old, parent=self._temporary)
        except OSError as error:
            raise self._refusal(error) from None
        except ParcelError as error:
            raise BackendFailed(f"Not installed: {error}.") from None
        finally:
            if place >= 0:
                os.close(place)
            self.abort()

    def abort(self) -> None:
        """Leave no trace of what was not finished. Idempotent."""
        self._close_file()
        if self._last[1] >= 0:
            os.close(self._last[1])
            self._last = (), -1
        if self._stage >= 0:
            os.close(self._stage)
            self._stage = -1
        if self._temporary >= 0:
            remove_tree(self._staged, parent=self._temporary)
            os.close(self._temporary)
            self._temporary = -1

    # Inside

    def _begin(self, entry: Entry) -> None:
        self._close_file()
        if entry.kind != "file":
            raise ParcelError(f"packages come as files, and this is a {entry.kind}")
        self._files += 1
        folder = self._folder(entry.parts[:-1])
        self._must_fit(self._bytes, self._files)
        mode = 0o700 if entry.executable else 0o600
        self._file = os.open(entry.parts[-1], _WRITE, mode, dir_fd=folder)

    def _append(self, data: bytes) -> None:
        self._bytes += len(data)
        self._must_fit(self._bytes, self._files)
        view = memoryview(data)
        while view:
            view = view[os.write(self._file, view) :]

    def _folder(self, parts: tuple[str, ...]) -> int:
        """A handle of a folder of the new tree, made if need be; the last one is kept, as files come by folder."""
        if self._last[1] >= 0:
            if self._last[0] == parts:
                return self._last[1]
            os.close(self._last[1])
            self._last = (), -1
        fd = os.dup(self._stage)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=fd)
                    self._files += 1
                inner = os.open(part, _DIR, dir_fd=fd)
                os.close(fd)
                fd = inner
        except OSError:
            os.close(fd)
            raise
        self._last = parts, fd
        return fd

    def _reach(self, *parts: str) -> int:
        """A handle of a folder of ours below the session's; made again where the guest has removed it."""
        fd = os.open(self._workspace.root, _DIR)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=fd)
                inner = os.open(part, _DIR, dir_fd=fd)
                os.close(fd)
                fd = inner
        except OSError:
            os.close(fd)
            raise
        return fd

    def _must_fit(self, size: int, files: int) -> None:
        limits = self._workspace
        if size > limits.max_bytes or files > limits.max_files:
            raise FileRefused(
                f"The packages do not fit into the session's folder, which may hold {limits.max_bytes / 2**20:.0f} MiB "
                f"in {limits.max_files:,} files. Delete files that are no longer needed, or install less."
            )

    def _refusal(self, error: OSError) -> FileRefused:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return FileRefused("The disk is full; the packages were not installed. Delete files first.")
        place = "/".join((*self._folders, self._name))
        return FileRefused(
            f"The packages could not be put into {place} ({error.strerror or error}). Code of this session has changed "
            "the folders .packages or .tmp: remove what it put there, or use a new session."
        )

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
