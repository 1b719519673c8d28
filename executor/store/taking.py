"""Taking: a parcel that comes out of a session becomes a pack.

The parcel is a guest's word: it may bring what nobody asked for, twice, cut short or without an end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Set

from executor.backend import Print, Tree
from executor.errors import StoreFailed
from executor.parcel import Entry, ParcelError, Unpacker
from executor.store.manifest import NOWHERE, UNKNOWN, Content, History, Kept
from executor.store.medium import Medium
from executor.store.names import Name
from executor.store.packs import Pack, PackWriter

RACY = 20_000_000
"""Nanoseconds within which two changes of a file may have the same change time: two ticks of a slow kernel."""


class Taking:
    """Takes those `wanted` paths that the parcel brings; blocks, and not for two threads at once.

    `limit` is in bytes, of the whole parcel. What comes as the tree has it is kept under the tree's print, so that it
    is known the next time; anything else is kept as it came and asked for again. So is what changed so shortly
    before `began` (ns since 1970) that a further change might not be seen.
    """

    def __init__(
        self, medium: Medium, name: Name, *, place: int, tree: Tree, wanted: Set[str], began: int, limit: int
    ) -> None:
        self._writer = PackWriter(medium, name)
        self._place = place
        self._tree = tree
        self._wanted = wanted
        self._began = began
        self._limit = limit
        self._read = 0
        self._unpacker = Unpacker()
        self._taking = False
        self.entries: dict[str, Kept] = {}

    def absorb(self, piece: bytes) -> None:
        """Take the next piece of the parcel. Raises StoreFailed and OSError."""
        self._read += len(piece)
        if self._read > self._limit:
            raise StoreFailed("The session's folder holds more than the whole store may; delete files in it.")
        try:
            for item in self._unpacker.feed(piece):
                if isinstance(item, Entry):
                    self._begin(item)
                elif self._taking:
                    self._writer.add(item)
        except ParcelError as error:
            raise StoreFailed(f"The session's folder could not be read: {error}.") from None

    def history(self, history: bytes) -> History:
        """Add the history, after all else. Raises OSError."""
        place = Content(self._place, self._writer.content) if history else NOWHERE
        self._writer.add(history)
        return History(place, len(history), history_sum(history))

    def close(self) -> None:
        """The parcel is over. Raises StoreFailed where something of it is missing."""
        try:
            self._unpacker.close()
        except ParcelError as error:
            raise StoreFailed(f"The session's folder could not be read: {error}.") from None

    def finish(self) -> Pack | None:
        """The pack, complete; None where no content came. Raises OSError."""
        return self._writer.finish()

    def abandon(self) -> None:
        """Let go of what is open. Idempotent."""
        self._writer.abandon()

    def _begin(self, entry: Entry) -> None:
        path = "/".join(entry.parts)
        self._taking = path in self._wanted
        if not self._taking:
            return
        said = self._tree[path]
        print: Print = (entry.kind, entry.mode, entry.size, entry.modified, UNKNOWN, UNKNOWN)
        if said[:4] == print[:4] and said[4] <= self._began - RACY:
            print = said
        place = Content(self._place, self._writer.content) if entry.size else NOWHERE
        self.entries[path] = Kept(print, place)


def history_sum(history: bytes) -> str:
    """What tells whether a history has changed."""
    return hashlib.sha256(history).hexdigest()
