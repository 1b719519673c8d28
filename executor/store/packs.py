"""Packs: the contents of many files, one after the other, compressed in blocks that can be read one by one.

All contents together are one long stream; every `BLOCK` bytes of it become a zstd frame of their own, with a checksum
that is kept elsewhere (in the manifest). So a file is found by its offset, files may share a block, and damage costs
the files of that block only. Everything here blocks.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import zstandard

from executor.store.medium import Medium, Reader, Writer
from executor.store.names import Name

BLOCK = 256 * 2**10
"""Bytes of content in a block; the last one of a pack may have fewer."""

SUM = 16
"""Bytes of a checksum: SHA-256, cut. Chance is what it stands against, not somebody who can write into the store."""

LEVEL = 1
CACHED = 4 * 2**20
"""Bytes of checked blocks that are kept for the reading that follows the check."""


class Damaged(Exception):
    """What was read is not what was written."""


@dataclass(frozen=True, slots=True)
class Pack:
    """A pack that has been written: its bytes in the store and of content, where each block ends, its checksums."""

    name: Name
    size: int
    content: int
    ends: tuple[int, ...]
    sums: bytes


class PackWriter:
    """Writes a pack; the name comes into being with the first full block. Not for two threads at once."""

    def __init__(self, medium: Medium, name: Name) -> None:
        self._medium = medium
        self._name = name
        self._writer: Writer | None = None
        self._compressor = zstandard.ZstdCompressor(level=LEVEL)
        self._buffer = bytearray()
        self._ends: list[int] = []
        self._sums = bytearray()
        self._size = 0
        self.content = 0
        """Bytes of content up to now: the offset of what is added next."""

    def add(self, data: bytes) -> None:
        """Append content. Raises OSError."""
        self._buffer += data
        self.content += len(data)
        while len(self._buffer) >= BLOCK:
            self._write(bytes(self._buffer[:BLOCK]))
            del self._buffer[:BLOCK]

    def finish(self) -> Pack | None:
        """The complete pack; None where there was no content, then there is no name either. Raises OSError."""
        if self._buffer:
            self._write(bytes(self._buffer))
            self._buffer.clear()
        if self._writer is None:
            return None
        self._writer.close()
        return Pack(self._name, self._size, self.content, tuple(self._ends), bytes(self._sums))

    def abandon(self) -> None:
        """Let go of what is open. Idempotent."""
        if self._writer is not None:
            self._writer.abandon()

    def _write(self, block: bytes) -> None:
        frame = self._compressor.compress(block)
        if self._writer is None:
            self._writer = self._medium.create(self._name.path)
        self._writer.write(frame)
        self._size += len(frame)
        self._ends.append(self._size)
        self._sums += checksum(frame)


class PackReader:
    """Reads contents out of a pack. Every method raises OSError, and Damaged where a block is not what was written."""

    def __init__(self, medium: Medium, pack: Pack) -> None:
        self._pack = pack
        self._reader: Reader = medium.open(pack.name.path)
        if self._reader.size != pack.size:
            self._reader.close()
            raise Damaged(f"{pack.name} has {self._reader.size} bytes instead of {pack.size}")
        self._decompressor = zstandard.ZstdDecompressor()
        self._checked: dict[int, bytes] = {}
        self._block = -1, b""

    def check(self, offset: int, length: int) -> None:
        """See to it that contents can be read; what is small is kept for that."""
        blocks = _blocks(offset, length)
        ends = self._pack.ends
        if not 0 <= offset <= offset + length <= self._pack.content:
            raise Damaged(f"{self._pack.name} has no content at {offset}")
        small = not length or ends[blocks[-1]] - (ends[blocks[0] - 1] if blocks[0] else 0) <= CACHED
        checked = self._checked
        self._checked = {}
        for block in blocks:
            if block == self._block[0]:
                continue
            frame = checked.get(block) or self._frame(block)
            if small:
                self._checked[block] = frame

    def read(self, offset: int) -> bytes:
        """The contents from `offset` to the end of its block."""
        block, start = divmod(offset, BLOCK)
        if self._block[0] != block:
            frame = self._checked.pop(block, None) or self._frame(block)
            try:
                self._block = block, self._decompressor.decompress(frame, max_output_size=BLOCK)
            except zstandard.ZstdError as error:
                raise Damaged(f"{self._pack.name}: {error}") from None
        return self._block[1][start:]

    def prove(self, block: int) -> bool:
        """Check one block; False where there are no more."""
        if block >= len(self._pack.ends):
            return False
        self._frame(block)
        return True

    def close(self) -> None:
        """Let go of the file. Idempotent."""
        self._reader.close()

    def _frame(self, block: int) -> bytes:
        start = self._pack.ends[block - 1] if block else 0
        length = self._pack.ends[block] - start
        wanted = self._pack.sums[block * SUM : (block + 1) * SUM]
        # twice: a volume may give the old content, or nothing, the first time
        for _ in range(2):
            frame = self._reader.read(start, length)
            if checksum(frame) == wanted:
                return frame
        raise Damaged(f"{self._pack.name} is damaged in block {block}")


def checksum(data: bytes) -> bytes:
    """The checksum of a block."""
    return hashlib.sha256(data).digest()[:SUM]


def _blocks(offset: int, length: int) -> range:
    return range(offset // BLOCK, (offset + length - 1) // BLOCK + 1) if length else range(0)
