"""Saving and restoring JavaScript hold against traps, and against state files that are not what was written."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import pytest
from harness import wait_for
from javascript_state import STATE, node, restore, run, save


@pytest.mark.parametrize(
    "trap",
    [
        "Object.defineProperty(globalThis, 'boom', { get() { for (;;); }, enumerable: true, configurable: true })",
        "var boom = { get x() { for (;;); }, toJSON() { for (;;); } }",
        "var boom = new Proxy({}, { ownKeys() { for (;;); }, getPrototypeOf() { for (;;); } })",
        "class Boom { static get [Symbol.species]() { for (;;); } get y() { for (;;); } }; var boom = new Boom()",
        "Array.prototype.push = Array.prototype.map = () => { throw 1; }",
        "Object.prototype.get = 5; Object.prototype.value = 6",
        "Map = Set = Object = Reflect = Buffer = undefined",
        "Array.prototype[Symbol.iterator] = undefined",
        "Error.prepareStackTrace = () => { throw 1 }; var boom = new Error('x')",
        "var boom = {}; for (let i = 0, at = boom; i < 1e5; i++) at = at.next = {}",
        "var boom = Object.setPrototypeOf(Promise.resolve(1), Object.prototype)",
        "JSON.stringify = () => '{'; process.cwd = () => 5; RegExp.prototype.exec = () => null",
    ],
)
def test_no_trap_hangs_or_ends_the_session(tmp_path: Path, trap: str) -> None:
    with node(tmp_path) as first:
        run(first, "var kept = 7", trap)
        head = save(first)
        assert head.problem or "kept" in head.names
        assert first.run("kept").value == "7"
    with node(tmp_path) as second:
        told = restore(second)
        assert second.run("typeof kept").value == ("'undefined'" if told["problem"] else "'number'")


def test_a_trap_in_what_is_written_as_json_ends_by_the_deadline(tmp_path: Path) -> None:
    with node(tmp_path) as first:
        run(
            first,
            "var kept = 7; setTimeout(() => { require('fs').writeFileSync('armed', ''); "
            "Array.prototype.toJSON = function () { for (;;); }; }, 50); 0",
        )
        wait_for(tmp_path / "armed")
        assert "over 10 s" in save(first).problem


def state(tmp_path: Path) -> bytes:
    with node(tmp_path) as first:
        run(first, "var x = 1, y = { a: [1, 2] }; const f = () => 1")
        save(first)
    return (tmp_path / STATE).read_bytes()


@pytest.mark.parametrize("damage", ["cut", "empty", "no head", "no body", "noise", "missing", "folder"])
def test_a_damaged_state_is_a_problem_and_leaves_a_clean_interpreter(tmp_path: Path, damage: str) -> None:
    whole = state(tmp_path)
    head, _, body = whole.partition(b"\n")
    target = tmp_path / STATE
    target.unlink()
    match damage:
        case "folder":
            target.mkdir()
        case "missing":
            pass
        case _:
            target.write_bytes(
                {
                    "cut": whole[:-20],
                    "empty": b"",
                    "no head": body,
                    "no body": head + b"\n",
                    "noise": head + b"\n" + bytes(range(256)) * 50,
                }[damage]
            )
    with node(tmp_path) as second:
        told = restore(second)
        assert told["problem"].startswith("The variables of JavaScript could not be restored")
        assert told["names"] == []
        assert second.run("[typeof x, typeof y, typeof f]").value == "[ 'undefined', 'undefined', 'undefined' ]"


def test_a_state_of_another_version_of_node_is_refused(tmp_path: Path) -> None:
    head, _, body = state(tmp_path).partition(b"\n")
    other = json.loads(head)
    other["versions"]["node"] = "18.20.1"
    (tmp_path / STATE).write_bytes(json.dumps(other).encode() + b"\n" + body)
    with node(tmp_path) as second:
        assert "saved by Node 18.20.1 and cannot be read by" in restore(second)["problem"]
        assert second.run("typeof x").value == "'undefined'"


def test_a_state_is_not_saved_while_a_cell_runs(tmp_path: Path) -> None:
    with node(tmp_path) as first:
        first.control.send(first.interpreter.execute("e9", "await new Promise(() => {})", 9))
        assert "a cell runs" in save(first).problem


def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with node(tmp_path) as first:
        run(first, "process.on('SIGXFSZ', () => {}); var x = 'x'.repeat(1e6); 0")
        resource.prlimit(first.process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
        assert "EFBIG" in save(first).problem
        assert run(first, "x.length").value == "1000000"


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("kept")
    with node(tmp_path) as first:
        run(first, "var x = 1")
        (tmp_path / STATE).with_name("javascript.part").symlink_to(tmp_path / "kept")
        assert save(first).names == ("x",)
    assert (tmp_path / "kept").read_text() == "kept"
    assert (tmp_path / STATE).stat().st_mode & 0o777 == 0o600
