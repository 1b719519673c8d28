"""Saves and restores a node process, as a leader does it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import Cell, Leader

from executor.languages.channel import Restored, StateHead
from executor.languages.checks import state_head
from executor.languages.javascript import JavaScript

STATE = Path(".state", "javascript")
LIMIT = 20_000_000


@contextmanager
def node(folder: Path, *, memory_mb: int = 512) -> Iterator[Leader]:
    (folder / ".state").mkdir(exist_ok=True)
    with Leader(JavaScript(folder=folder, memory_mb=memory_mb), folder) as leader:
        yield leader


def run(leader: Leader, *cells: str) -> Cell:
    for code in cells:
        cell = leader.run(code)
        assert cell.done["status"] == "ok", (code, cell.done["error"])
    return cell


def save(leader: Leader, *, limit: int = LIMIT, without: tuple[str, ...] = ()) -> StateHead:
    target = leader.folder / STATE
    target.unlink(missing_ok=True)
    order = leader.interpreter.save(str(STATE), limit=limit, without=without)
    assert order is not None
    leader.pump(lambda _: target.exists(), outgoing=order)
    assert not target.with_name("javascript.part").exists()
    return state_head(target.read_bytes().partition(b"\n")[0])


def restore(leader: Leader) -> Restored:
    order = leader.interpreter.restore("r1", str(STATE))
    assert order is not None
    cell = leader.pump(lambda cell: any(event["event"] == "restored" for event in cell.events), outgoing=order)
    for event in cell.events:
        if event["event"] == "restored":
            assert event["id"] == "r1"
            return event
    raise AssertionError(f"nothing was restored: {cell}")


def lost(told: StateHead | Restored) -> dict[str, str]:
    items = told.lost if isinstance(told, StateHead) else told["lost"]
    return {item["name"]: item["reason"] for item in items}


def through(folder: Path, *cells: str, expect: dict[str, str]) -> StateHead:
    """Run `cells`, save, restore in another process, and look at the values of `expect` there."""
    with node(folder) as first:
        run(first, *cells)
        head = save(first)
    assert head.problem == ""
    with node(folder) as second:
        told = restore(second)
        assert told["problem"] == ""
        assert set(told["names"]) == set(head.names)
        assert {code: second.run(code).value for code in expect} == expect
    return head
