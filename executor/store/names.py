"""Names: what things in the store are called, so that names say their order and nothing of whom they belong to.

`ab/<key>-<epoch>-<sequence>-<nonce>.<suffix>`: the key is a hash of the session id, as ids are what lets a caller reach
a session and listings are seen by more people; `ab` are its first two digits, so that no folder grows long. Every
start of a server takes a higher epoch, every save of a session a higher sequence; the nonce is the server's, so that
two that took the same epoch on a volume that lists late do not take the same names.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

EPOCHS = "epochs"
SHARDS = tuple(f"{number:02x}" for number in range(256))

Suffix = Literal["pack", "snap"]
Order = tuple[int, int, str]
"""Epoch, sequence, nonce: of two snapshots of a session, the one with the higher order is the newer one."""

NEVER: Order = (-1, -1, "")

_NAME = re.compile(r"([0-9a-f]{40})-([0-9a-f]{8})-([0-9a-f]{8})-([0-9a-f]{8})\.(pack|snap)")
_EPOCH = re.compile(r"([0-9a-f]{8})-([0-9a-f]{8})")


def key_of(session_id: str) -> str:
    """What a session's names begin with."""
    return hashlib.sha256(b"snapshots of " + session_id.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def shard_of(key: str) -> str:
    """The folder that a session's names are in."""
    return key[:2]


def new_nonce() -> str:
    """What tells one server from every other."""
    return secrets.token_hex(4)


@dataclass(frozen=True)
class Name:
    """A pack or a manifest (`snap`) of a session."""

    key: str
    order: Order
    suffix: Suffix

    @cached_property
    def path(self) -> str:
        """What the medium knows it by."""
        epoch, sequence, nonce = self.order
        return f"{shard_of(self.key)}/{self.key}-{epoch:08x}-{sequence:08x}-{nonce}.{self.suffix}"

    def __str__(self) -> str:
        return self.path


def parse(name: str) -> Name | None:
    """The name without its folder, as a listing gives it; None for what is not ours."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    key, epoch, sequence, nonce, suffix = match.groups()
    order = (int(epoch, 16), int(sequence, 16), nonce)
    return Name(key, order, "pack" if suffix == "pack" else "snap")


def epoch_path(epoch: int, nonce: str) -> str:
    """The name by which a server takes an epoch."""
    return f"{EPOCHS}/{epoch:08x}-{nonce}"


def epochs(names: Iterable[str]) -> list[tuple[int, str]]:
    """The epochs that were taken, each with the nonce of the server that took it."""
    return [(int(match[1], 16), match[2]) for name in names if (match := _EPOCH.fullmatch(name))]
