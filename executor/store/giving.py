"""Giving: a snapshot becomes the parcel of a whole folder."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import suppress

from executor.parcel import Entry, in_pieces
from executor.store.manifest import Content, Kept, Manifest
from executor.store.medium import Medium
from executor.store.packs import Damaged, Pack, PackReader
from executor.store.taking import history_sum

SMALL = 512 * 2**10
"""Bytes of content up to which a parcel is read as a whole."""

_ORDER = {"folder": 0, "file": 1, "link": 2}


class Giving:
    """The packs of a snapshot, held open, so that nobody can delete them from under a reader. Blocks.

    `history` is None where it is damaged. `small`: the whole parcel was read with that, and is in `pieces`; so most
    sessions cost one wait for a thread.
    """

    def __init__(self, medium: Medium, manifest: Manifest, *, salvage: bool) -> None:
        """Raises OSError, and Damaged where a pack is not there in full; with `salvage` what it held is damaged."""
        self.manifest = manifest
        self.damaged: list[str] = []
        self._packs: list[PackReader | None] = []
        self._pieces = in_pieces(self._parts())
        try:
            for pack in manifest.packs:
                self._packs.append(self._open(medium, pack, salvage))
            self.history = self._history()
            self.small = sum(kept.print[2] for kept in manifest.entries.values()) <= SMALL
            self.pieces = self._all() if self.small else []
        except BaseException:
            self.close()
            raise

    def _open(self, medium: Medium, pack: Pack, salvage: bool) -> PackReader | None:
        try:
            return PackReader(medium, pack)
        except (Damaged, FileNotFoundError):
            if not salvage:
                raise
            return None

    def _history(self) -> bytes | None:
        content, size, sum = self.manifest.history
        with suppress(Damaged):
            data = b"".join(self._content(content, size))
            if history_sum(data) == sum:
                return data
        return None

    def next(self) -> bytes:
        """The next piece of a parcel that is not small; empty at the end. Raises OSError, and Damaged where content
        that was whole a moment ago is not any more."""
        return next(self._pieces, b"")

    def _all(self) -> list[bytes]:
        try:
            return list(self._pieces)
        except Damaged as error:
            # it was whole a moment ago: no older snapshot is to be taken for it, but another try
            raise OSError(errno.EIO, f"{error}") from None

    def close(self) -> None:
        """Let go of what is open. Idempotent."""
        for pack in self._packs:
            if pack is not None:
                pack.close()

    def _parts(self) -> Iterator[bytes]:
        # folders first, and a folder before what it holds; links last, so that no path goes through one; and contents
        # in the order in which they lie
        ordered = sorted(
            self.manifest.entries.items(), key=lambda item: (_ORDER[item[1].print[0]], item[1][1], item[0])
        )
        for path, kept in ordered:
            kind, mode, size, modified, _, _ = kept.print
            if not self._whole(kept):
                self.damaged.append(path)
                continue
            yield Entry(tuple(path.split("/")), kind, mode, modified, size).head()  # type: ignore[arg-type]
            yield from self._content(kept.content, size)

    def _whole(self, kept: Kept) -> bool:
        with suppress(Damaged):
            if kept.print[2]:
                self._pack(kept.content).check(kept.content.offset, kept.print[2])
            return True
        return False

    def _content(self, content: Content, size: int) -> Iterator[bytes]:
        offset, end = content.offset, content.offset + size
        while offset < end:
            data = self._pack(content).read(offset)[: end - offset]
            if not data:
                raise Damaged("a block is shorter than it was")
            offset += len(data)
            yield data

    def _pack(self, content: Content) -> PackReader:
        pack = self._packs[content.pack] if 0 <= content.pack < len(self._packs) else None
        if pack is None:
            raise Damaged("the pack is missing")
        return pack
