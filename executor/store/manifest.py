"""Manifest: the small file that makes a snapshot one: whose it is, what is in it, and where the contents lie.

It is written last and proves itself: a checksum over all of it, and checksums of all that it refers to. Its head can
be read without the rest, as a start of the server does for every session.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

import zstandard

from executor.backend import Print, Tree
from executor.store.names import Name, Order, key_of
from executor.store.packs import SUM, Damaged, Pack

_MAGIC = b"snapshot 1\n"
_LENGTH = struct.Struct("!I")
_SUM = hashlib.sha256().digest_size
_KINDS = {"file": "f", "folder": "d", "link": "l"}
_WORDS = {letter: kind for kind, letter in _KINDS.items()}

UNKNOWN = -1
"""Change time and inode of something that came different from what the tree had said; equal to nothing's."""


class Content(NamedTuple):
    """Where bytes lie: which one of the manifest's packs, and the offset in its contents."""

    pack: int
    offset: int


NOWHERE = Content(-1, 0)
"""Where empty files and folders lie."""


class Kept(NamedTuple):
    """Something of the folder, as it was when it was taken, and where its content is."""

    print: Print
    content: Content


class History(NamedTuple):
    """The history's place, length and checksum."""

    content: Content
    size: int
    sum: str


@dataclass(frozen=True)
class Head:
    """What can be known of a snapshot without its contents; `packs` are names and their bytes."""

    name: Name
    session_id: str
    meta: dict[str, Any]
    taken_at: float
    packs: tuple[tuple[Name, int], ...]
    size: int
    """Bytes of the manifest itself."""

    @property
    def bytes(self) -> int:
        """What the whole snapshot takes in the store."""
        return self.size + sum(size for _, size in self.packs)


@dataclass(frozen=True)
class Manifest:
    """A whole snapshot but for the contents."""

    name: Name
    session_id: str
    meta: dict[str, Any]
    taken_at: float
    packs: tuple[Pack, ...]
    entries: dict[str, Kept] = field(repr=False)
    history: History

    def tree(self) -> Tree:
        """What the folder had, as `save` was told it."""
        return {path: kept.print for path, kept in self.entries.items()}

    def head(self, size: int) -> Head:
        """Its head, `size` being the bytes of the encoded manifest."""
        packs = tuple((pack.name, pack.size) for pack in self.packs)
        return Head(self.name, self.session_id, self.meta, self.taken_at, packs, size)

    def encode(self) -> bytes:
        """The file's bytes."""
        head = {
            "session_id": self.session_id,
            "meta": self.meta,
            "taken_at": self.taken_at,
            "packs": [[*pack.name.order, pack.size] for pack in self.packs],
        }
        prints = [kept.print for kept in self.entries.values()]
        body = {
            "paths": list(self.entries),
            "kinds": "".join(_KINDS[print[0]] for print in prints),
            "prints": [list(column) for column in zip(*(print[1:] for print in prints), strict=True)],
            "packs": [kept.content.pack for kept in self.entries.values()],
            "offsets": [kept.content.offset for kept in self.entries.values()],
            "history": [*self.history.content, self.history.size, self.history.sum],
            "blocks": [[pack.content, pack.ends, base64.b64encode(pack.sums).decode()] for pack in self.packs],
        }
        top = _json(head)
        rest = _LENGTH.pack(len(top)) + top + zstandard.ZstdCompressor(level=3).compress(_json(body))
        return _MAGIC + hashlib.sha256(rest).digest() + rest


def read_head(name: Name, data: bytes) -> Head:
    """Raises Damaged where `data` is not the whole manifest of that name."""
    return _read(name, data)[0]


def whose(name: Name, data: bytes) -> Head | None:
    """What the head of a damaged manifest says, where it can still be read and its session is that of the name: to
    tell somebody of the damage, and for nothing else."""
    try:
        return _head(name, data)[0]
    except (Damaged, AttributeError, OverflowError, RecursionError):
        return None


def decode(name: Name, data: bytes) -> Manifest:
    """Raises Damaged where `data` is not the whole manifest of that name."""
    head, rest = _read(name, data)
    try:
        body = json.loads(zstandard.ZstdDecompressor().decompress(rest))
        kinds = [_WORDS[letter] for letter in body["kinds"]]
        columns = zip(kinds, *body["prints"], strict=True) if kinds else ()
        places = map(Content, body["packs"], body["offsets"])
        entries = {
            path: Kept(cast(Print, print), place)
            for path, print, place in zip(body["paths"], columns, places, strict=True)
        }
        packs = tuple(
            Pack(pack, size, content, tuple(ends), base64.b64decode(sums))
            for (pack, size), (content, ends, sums) in zip(head.packs, body["blocks"], strict=True)
        )
        pack, offset, size, sum = body["history"]
    except (ValueError, KeyError, TypeError, zstandard.ZstdError) as error:
        raise Damaged(f"{name} cannot be read: {type(error).__name__}") from None
    if any(len(pack.sums) != SUM * len(pack.ends) for pack in packs):
        raise Damaged(f"{name} cannot be read: checksums are missing")
    history = History(Content(pack, offset), size, sum)
    return Manifest(name, head.session_id, head.meta, head.taken_at, packs, entries, history)


def _read(name: Name, data: bytes) -> tuple[Head, bytes]:
    start = len(_MAGIC) + _SUM
    if not data.startswith(_MAGIC) or hashlib.sha256(data[start:]).digest() != data[len(_MAGIC) : start]:
        raise Damaged(f"{name} is damaged or not complete")
    return _head(name, data)


def _head(name: Name, data: bytes) -> tuple[Head, bytes]:
    start = len(_MAGIC) + _SUM
    try:
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        head = json.loads(data[start : start + length])
        packs = tuple((Name(name.key, _order(pack), "pack"), int(pack[3])) for pack in head["packs"])
        result = Head(name, head["session_id"], head["meta"], float(head["taken_at"]), packs, len(data))
    except (ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise Damaged(f"{name} cannot be read: {type(error).__name__}") from None
    if key_of(result.session_id) != name.key:
        raise Damaged(f"{name} belongs elsewhere")
    return result, data[start + length :]


def _order(pack: list[Any]) -> Order:
    return int(pack[0]), int(pack[1]), str(pack[2])


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
