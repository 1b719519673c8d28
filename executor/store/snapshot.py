"""Snapshot: what the store says about what it holds; plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from executor.backend import Tree


@dataclass(frozen=True, slots=True)
class Record:
    """A session that the store holds. `taken_at` in seconds since 1970; `bytes` is what its newest snapshot takes in
    the store, `sequence` counts its saves.

    What `save` returns says besides how many bytes it `written`, and which paths of the tree are not in the snapshot
    because they were gone (or something else stood in their way) when their content was asked for (`left_out`).
    """

    session_id: str
    meta: dict[str, Any]
    taken_at: float
    bytes: int
    sequence: int
    written: int = 0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that is being loaded. `damaged` names the files that could not be read; it grows until the parcel has
    been read to its end. `history_lost` where there was a history that could not be read."""

    session_id: str
    meta: dict[str, Any]
    tree: Tree = field(repr=False)
    taken_at: float
    bytes: int
    sequence: int
    damaged: list[str] = field(default_factory=list)
    history_lost: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    """What the store takes, in bytes, and the sessions in it."""

    bytes: int
    sessions: int
