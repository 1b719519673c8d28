"""Plan: what of a folder has to be taken anew, and what of the former snapshot is kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass

from executor.backend import Tree
from executor.store.manifest import NOWHERE, Content, History, Kept, Manifest
from executor.store.names import Name
from executor.store.packs import Pack
from executor.store.taking import history_sum

MAX_PACKS = 16
"""Packs of a snapshot; with more, the smaller half is written anew as one."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`kept` refers to `packs`, the former ones that stay; `wanted` is to be taken, folders first; `history` is the
    former one where it stays."""

    packs: tuple[Pack, ...]
    kept: dict[str, Kept]
    wanted: tuple[str, ...]
    history: History | None


def plan(former: Manifest | None, usable: Set[Name], tree: Tree, history: bytes) -> Plan:
    """What to do so that the next snapshot holds `tree` and `history`, `usable` being those of the former one's packs
    that are there in full.

    Packs of which less than half is still of use are written anew, as are the smaller ones where there are too many.
    """
    if former is None:
        return Plan((), {}, _in_order(tree, tree.keys()), None)
    same = {path: kept for path, kept in former.entries.items() if tree.get(path) == kept.print}
    old = former.history if former.history.sum == history_sum(history) else None
    live: Counter[int] = Counter()
    for one in same.values():
        live[one.content.pack] += one.print[2]
    if old is not None:
        live[old.content.pack] += old.size
    stay = [
        number
        for number, pack in enumerate(former.packs)
        if pack.name in usable and live[number] and 2 * live[number] >= pack.content
    ]
    if len(stay) >= MAX_PACKS:
        stay = sorted(sorted(stay, key=lambda number: -live[number])[: MAX_PACKS // 2])
    places = {number: place for place, number in enumerate(stay)} | {NOWHERE.pack: NOWHERE.pack}
    kept = {
        path: Kept(one.print, Content(places[one.content.pack], one.content.offset))
        for path, one in same.items()
        if one.content.pack in places
    }
    if old is not None and old.content.pack in places:
        old = old._replace(content=Content(places[old.content.pack], old.content.offset))
    else:
        old = None
    return Plan(tuple(former.packs[number] for number in stay), kept, _in_order(tree, tree.keys() - kept.keys()), old)


def in_folders(entries: dict[str, Kept]) -> dict[str, Kept]:
    """Without what could not be put back, because something that is no folder stands in its way."""
    others = {path for path, kept in entries.items() if kept.print[0] != "folder"}
    return {path: kept for path, kept in entries.items() if not any(above in others for above in _above(path))}


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _in_order(tree: Tree, paths: Set[str]) -> tuple[str, ...]:
    return tuple(sorted(paths, key=lambda path: (tree[path][0] != "folder", path)))
