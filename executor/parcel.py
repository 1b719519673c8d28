"""Parcel: a folder as one stream of bytes, which its reader can take in pieces of any size.

An entry is a head (2 bytes length of its path, 1 byte kind, 2 bytes permission bits, 8 bytes modification time in ns,
8 bytes length of its content), its path in UTF-8, and its content: the bytes of a file (`F`), nothing for a folder
(`D`), the target of a symbolic link (`L`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

PIECE = 256 * 2**10
"""Bytes of the largest pieces that a folder is packed into."""

MAX_DEPTH = 48
MODES = 0o777
"""Permission bits that travel."""

Kind = Literal["file", "folder", "link"]

_HEAD = struct.Struct("!HcHqQ")
_LATEST = 2**63 - 1
_LETTERS: dict[Kind, bytes] = {"file": b"F", "folder": b"D", "link": b"L"}
_KINDS: dict[bytes, Kind] = {letter: kind for kind, letter in _LETTERS.items()}


class ParcelError(Exception):
    """The stream is no parcel."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something begins: the components of its path, what it is, permission bits, modification time in ns, and the
    bytes of content that follow."""

    parts: tuple[str, ...]
    kind: Kind = "file"
    mode: int = 0o600
    modified: int = 0
    size: int = 0

    @property
    def executable(self) -> bool:
        """Whether its owner may execute it."""
        return bool(self.mode & 0o100)

    def head(self) -> bytes:
        """The bytes that stand before the content."""
        name = os.fsencode("/".join(self.parts))
        # file systems know years that 64 bits of nanoseconds do not
        modified = min(max(self.modified, -_LATEST), _LATEST)
        return _HEAD.pack(len(name), _LETTERS[self.kind], self.mode & MODES, modified, self.size) + name


def pack(root: Path) -> Iterator[bytes]:
    """The regular files below `root`, in pieces; links and everything else are left out. Blocks on the disk."""
    return in_pieces(_packed(root))


def in_pieces(parts: Iterable[bytes]) -> Generator[bytes, None, None]:
    """The same bytes in pieces of at most `PIECE`: small parts together, large ones as they are, uncopied."""
    small = bytearray()
    for part in parts:
        if small and len(small) + len(part) > PIECE:
            yield bytes(small)
            small.clear()
        if small or len(part) < PIECE // 4:
            small += part
            continue
        for start in range(0, len(part), PIECE):
            yield part[start : start + PIECE]
    if small:
        yield bytes(small)


def _packed(root: Path) -> Iterator[bytes]:
    for path, info in walk(root):
        parts = path.relative_to(root).parts
        yield Entry(parts, "file", info.st_mode & MODES, info.st_mtime_ns, info.st_size).head()
        left = info.st_size
        with path.open("rb") as file:
            while left:
                data = file.read(min(PIECE, left))
                if not data:
                    raise ParcelError(f"{path.name} became shorter while it was read")
                left -= len(data)
                yield data


def walk(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """(path, its lstat) of every regular file below `root`; what vanishes meanwhile is left out."""
    folders = [str(root)]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        yield Path(entry.path), entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue


def measure(root: Path) -> tuple[int, int]:
    """(bytes, files) below `root`."""
    size = count = 0
    for _, info in walk(root):
        size += info.st_size
        count += 1
    return size, count


class Unpacker:
    """Cuts a parcel into entries, each followed by the bytes of its content. Raises ParcelError."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._left = 0

    def feed(self, data: bytes) -> Iterator[Entry | bytes]:
        """What `data` completes, in order."""
        view = memoryview(data)
        while view:
            if self._left:
                content = view[: self._left]
                view = view[len(content) :]
                self._left -= len(content)
                yield bytes(content)
                continue
            wanted = _HEAD.size
            if len(self._buffer) >= wanted:
                wanted += _HEAD.unpack_from(self._buffer)[0]
            taken = view[: wanted - len(self._buffer)]
            self._buffer += taken
            view = view[len(taken) :]
            if len(self._buffer) < _HEAD.size:
                continue
            length, letter, mode, modified, size = _HEAD.unpack_from(self._buffer)
            if len(self._buffer) == _HEAD.size + length:
                entry = Entry(
                    _parts(bytes(self._buffer[_HEAD.size :])), _kind(letter, size), mode & MODES, modified, size
                )
                self._buffer.clear()
                self._left = size
                yield entry

    def close(self) -> None:
        """Raises ParcelError where something is missing."""
        if self._left or self._buffer:
            raise ParcelError("the parcel is cut short")


def _kind(letter: bytes, size: int) -> Kind:
    kind = _KINDS.get(letter)
    if kind is None:
        raise ParcelError("the parcel holds something that is no file, folder or link")
    if (kind == "folder" and size) or (kind == "link" and not 0 < size <= 4096):
        raise ParcelError(f"the parcel holds a {kind} of {size} bytes")
    return kind


def _parts(name: bytes) -> tuple[str, ...]:
    parts = tuple(os.fsdecode(name).split("/"))
    if len(parts) > MAX_DEPTH or any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise ParcelError("a path in the parcel leaves its folder")
    return parts
