"""A state file: one line of JSON that tells what is in it, the pickles, and a checksum at the end.

The line comes first and is known last, so room is left for it. The file appears under its name when it is whole.
"""

from __future__ import annotations

import io
import json
import os
import struct
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from executor.languages.channel import MAX_NAMES, MAX_PROBLEM, STATE_HEAD, ProtocolError, StateHead
from executor.languages.checks import state_head
from executor.languages.reasons import TooLarge, bounded

_TRAILER = struct.Struct(">4sIQ")
_MAGIC = b"PyS1"
_BUFFER = 1 << 18
"""Bytes that are written together."""
_MOST_OF_HEAD = STATE_HEAD - 16_384
"""Bytes of a head before its names are fewer than there are."""
_SPARE = 8192
"""Bytes of a head for what is known after the pickles only: versions."""

_OF_LOST = 200
"""The same for each name that may turn out lost."""

_getpid, _exit, _write, _pwrite, _pread = os.getpid, os._exit, os.write, os.pwrite, os.pread
_open, _close, _rename, _unlink, _fstat, _stat = os.open, os.close, os.rename, os.unlink, os.fstat, os.stat
_mkdir, _ftruncate, _lseek = os.mkdir, os.ftruncate, os.lseek
_encode = json.JSONEncoder(separators=(",", ":")).encode
_memoryview = memoryview
_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Sink:
    """Where the pickler writes: `<path>.part` below `folder`, at most `limit` bytes.

    A process that guest code forked while it was pickled ends here instead of writing, too. Raises OSError.
    """

    def __init__(self, folder: str, path: str, limit: int) -> None:
        *parents, self._name = path.split("/")
        self._limit = limit
        self._pid = _getpid()
        self._buffer = bytearray()
        self._written = 0
        self._room = 0
        self._folder = _enter(folder, parents)
        self._part = f"{self._name}.part"
        with suppress(FileNotFoundError):
            _unlink(self._part, dir_fd=self._folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._fd = _open(self._part, flags, 0o600, dir_fd=self._folder)

    @property
    def position(self) -> int:
        """Bytes written so far."""
        return self._written + len(self._buffer)

    def leave_room(self, names: list[str]) -> None:
        """Start with room for a head that tells these, or that they are lost."""
        head = _head(names, [], "", {})
        self._room = self._written = min(len(head) + min(len(names), MAX_NAMES) * _OF_LOST + _SPARE, STATE_HEAD)
        _lseek(self._fd, self._written, os.SEEK_SET)

    def write(self, data: Any) -> int:
        """Take `data`. Raises TooLarge."""
        self._same_process()
        with _memoryview(data) as view:
            size = view.nbytes
            if self.position + size + _TRAILER.size > self._limit:
                raise TooLarge
            if size < _BUFFER:
                self._buffer += view.cast("B") if view.format != "B" or view.ndim != 1 else view
            else:
                self._flush()
                self._put(view.cast("B"))
        if len(self._buffer) > _BUFFER:
            self._flush()
        return size

    def take_back(self, position: int) -> None:
        """Forget what was written after `position`."""
        self._same_process()
        if position >= self._written:
            del self._buffer[position - self._written :]
        else:
            self._buffer.clear()
            _ftruncate(self._fd, position)
            _lseek(self._fd, position, os.SEEK_SET)
            self._written = position

    def finish(self, names: list[str], lost: Sequence[Mapping[str, Any]], versions: Mapping[str, str]) -> None:
        """Add head and checksum, and let the file appear."""
        self._same_process()
        self._flush()
        size = self._written - self._room
        self._put(_memoryview(_TRAILER.pack(_MAGIC, _checksum(self._fd, self._room, size), size)))
        self._put_head(_head(names, lost, "", versions, room=self._room - 1))
        self._appear()

    def fail(self, problem: str) -> None:
        """Let a file appear that says only what went wrong."""
        self._same_process()
        self._buffer.clear()
        _ftruncate(self._fd, 0)
        self._room = 0
        self._put_head(_head([], [], problem, {}))
        self._appear()

    def close(self) -> None:
        """Give the descriptors back."""
        _close(self._fd)
        _close(self._folder)

    def _put_head(self, head: bytes) -> None:
        line = head.ljust(self._room - 1) + b"\n"
        if _pwrite(self._fd, line, 0) != len(line):
            raise OSError("the disk is full")

    def _appear(self) -> None:
        ours, there = _fstat(self._fd), _stat(self._part, dir_fd=self._folder, follow_symlinks=False)
        if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino):
            _rename(self._part, self._name, src_dir_fd=self._folder, dst_dir_fd=self._folder)

    def _flush(self) -> None:
        if self._buffer:
            data, self._buffer = self._buffer, bytearray()
            self._put(_memoryview(data))

    def _put(self, view: memoryview) -> None:
        while view:
            count = _write(self._fd, view)
            self._written += count
            view = view[count:]

    def _same_process(self) -> None:
        if _getpid() != self._pid:
            _exit(0)


class Source:
    """A state file to load from. Raises ProtocolError with a sentence where it is none, or not whole."""

    def __init__(self, folder: str, path: str) -> None:
        try:
            fd = _open(f"{folder}/{path}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise ProtocolError(f"The saved state cannot be opened: {error.strerror or error}.") from None
        self.file: Any = io.BufferedReader(io.FileIO(fd, "rb"), 1 << 16)
        try:
            self.head = self._check(fd)
        except BaseException:
            self.file.close()
            raise

    def _check(self, fd: int) -> StateHead:
        line, end, _ = _pread(fd, STATE_HEAD, 0).partition(b"\n")
        if not end:
            raise ProtocolError("The saved state is broken: it does not begin with what is in it.")
        head = state_head(line)
        if head.problem:
            raise ProtocolError(f"There is no saved state: {head.problem}"[:MAX_PROBLEM])
        self.start = len(line) + 1
        size = _fstat(fd).st_size - self.start - _TRAILER.size
        trailer = _pread(fd, _TRAILER.size, self.start + size) if size >= 0 else b""
        if len(trailer) != _TRAILER.size:
            raise ProtocolError("The saved state is cut off.")
        magic, checksum, told = _TRAILER.unpack(trailer)
        if magic != _MAGIC or told != size or checksum != _checksum(fd, self.start, size):
            raise ProtocolError("The saved state is damaged or cut off: its checksum does not fit.")
        return head

    def rewind(self) -> Any:
        """The file, at its first pickle."""
        self.file.seek(self.start)
        return self.file

    def close(self) -> None:
        """Give the descriptor back."""
        self.file.close()


def _enter(folder: str, parents: list[str]) -> int:
    fd = _open(folder, _DIR)
    for name in parents:
        with suppress(FileExistsError):
            _mkdir(name, 0o700, dir_fd=fd)
        below = _open(name, _DIR, dir_fd=fd)
        _close(fd)
        fd = below
    return fd


def _checksum(fd: int, start: int, size: int) -> int:
    checksum, at, end = 0, start, start + size
    while at < end and (data := _pread(fd, min(1 << 20, end - at), at)):
        checksum = zlib.crc32(data, checksum)
        at += len(data)
    return checksum if at == end else -1


def _head(
    names: list[str],
    lost: Sequence[Mapping[str, Any]],
    problem: str,
    versions: Mapping[str, str],
    *,
    room: int = _MOST_OF_HEAD,
) -> bytes:
    """The head, with as many names as fit into `room` bytes."""
    most = MAX_NAMES
    while True:
        told = {"names": names[:most], "lost": lost[:most], "problem": bounded(problem, MAX_PROBLEM)}
        head = _encode({**told, "versions": dict(versions)}).encode()
        if len(head) <= room or not most:
            return head
        most = most * 3 // 4
