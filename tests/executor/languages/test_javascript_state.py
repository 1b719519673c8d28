"""What a JavaScript session holds is saved to a file and comes back in another process, or is named as lost."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from harness import Cell, Leader

from executor.languages.channel import Restored, StateHead, state_head
from executor.languages.javascript import JavaScript

STATE = Path(".state", "javascript")
LIMIT = 20_000_000


@contextmanager
def node(folder: Path) -> Iterator[Leader]:
    (folder / ".state").mkdir(exist_ok=True)
    with Leader(JavaScript(folder=folder, memory_mb=512), folder) as leader:
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


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


DATA = """
const big = { list: [1, , "three"], deep: { n: 10n ** 30n, zero: -0, nan: NaN, und: undefined, nul: null } };
let twin = big; var map = new Map([[big, new Set([1, "a"])]]); cyclic = { }; cyclic.me = cyclic;
const when = new Date(86400000), never = new Date(NaN), re = /a(b)/gi; re.lastIndex = 3;
const bytes = Buffer.from("hello"), part = bytes.subarray(1, 3), floats = new Float64Array([1.5, 2]);
const memory = floats.buffer, view = new DataView(memory, 8);
const frozen = Object.freeze({ x: 1 }), bare = Object.create(null), extra = Object.assign([1], { more: 2 });
const boxed = [new Number(1), new String("ab"), Object(1n)];
const own = Symbol("own"), keyed = { [own]: 1, [Symbol.for("all")]: 2 };
const failure = Object.assign(new TypeError("bad"), { code: "E1" }); let unset;
"""


def test_data_comes_back_as_it_was(folder: Path) -> None:
    through(
        folder,
        DATA,
        expect={
            "twin === big && map.get(big).has('a') && cyclic.me === cyclic": "true",
            "[big.list.length, 1 in big.list, big.deep.n === 10n ** 30n, 'und' in big.deep]": (
                "[ 3, false, true, true ]"
            ),
            "Object.is(big.deep.zero, -0)": "true",
            "[when.toISOString(), String(never), re.source, re.flags, re.lastIndex].join()": (
                "'1970-01-02T00:00:00.000Z,Invalid Date,a(b),gi,3'"
            ),
            "[bytes instanceof Buffer, bytes.toString(), part.buffer === bytes.buffer]": "[ true, 'hello', true ]",
            "bytes[1] = 72; part[0]": "72",
            "floats.buffer === memory && view.buffer === memory && view.getFloat64(0, true)": "2",
            "[Object.isFrozen(frozen), Object.getPrototypeOf(bare), extra.more, extra.length]": "[ true, null, 2, 1 ]",
            "boxed": "[ [Number: 1], [String: 'ab'], [BigInt: 1n] ]",
            "[keyed[own], keyed[Symbol.for('all')], own.description]": "[ 1, 2, 'own' ]",
            "[failure instanceof TypeError, failure.message, failure.code, failure.stack.includes('cell 1:10')]": (
                "[ true, 'bad', 'E1', true ]"
            ),
            "typeof unset": "'undefined'",
        },
    )


def test_const_stays_const_and_let_stays_let(folder: Path) -> None:
    with node(folder) as first:
        run(first, "const fixed = 1; let loose = 1; var old = 1; class Kind {}")
        save(first)
    with node(folder) as second:
        restore(second)
        error = second.run("fixed = 2").done["error"]
        assert error is not None
        assert error["message"] == "Assignment to constant variable."
        assert second.run("loose = 2; old = 3; [loose, old, globalThis.old, globalThis.loose]").value == (
            "[ 2, 3, 3, undefined ]"
        )
        assert run(second, "const fixed = 5; class Kind { x = 1 }", "[fixed, new Kind().x]").value == ("[ 5, 1 ]")


CLASSES = """
class Animal {
  static count = 0; static known = new Map();
  constructor(name) { this.name = name; Animal.count += 1; Animal.known.set(name, this); }
  speak() { return `${this.name} speaks`; }
  get loud() { return this.name.toUpperCase(); }
  static of(name) { return new this(name); }
  *[Symbol.iterator]() { yield this.name; }
}
class Dog extends Animal { speak() { return `${super.speak()}: woof`; } }
const rex = new Dog("rex"), pack = [rex, Dog.of("bello")];
class Failure extends Error { name = "Failure"; }
const failure = new Failure("no");
class Counts extends Map { add(key) { return this.set(key, (this.get(key) ?? 0) + 1); } }
const counts = new Counts([["a", 1]]);
function Old(n) { this.n = n; } Old.prototype.twice = function () { return this.n * 2; }; const old = new Old(4);
"""


def test_classes_and_their_instances_come_back(folder: Path) -> None:
    through(
        folder,
        CLASSES,
        expect={
            "rex.speak()": "'rex speaks: woof'",
            "[rex instanceof Dog, rex instanceof Animal, pack[0] === rex, [...rex][0], rex.loud]": (
                "[ true, true, true, 'rex', 'REX' ]"
            ),
            "[Animal.count, Animal.known.get('rex') === rex, new Dog('x').speak(), Animal.count]": (
                "[ 2, true, 'x speaks: woof', 3 ]"
            ),
            "[failure instanceof Failure, failure.message, failure.name]": "[ true, 'no', 'Failure' ]",
            "[counts.add('a').get('a'), counts instanceof Counts]": "[ 2, true ]",
            "[old.twice(), old instanceof Old]": "[ 8, true ]",
        },
    )


def test_a_parent_that_has_been_declared_again_is_still_the_parent(folder: Path) -> None:
    through(
        folder,
        "class A { who() { return 'first'; } }; class B extends A {}; const b = new B()",
        "class A { who() { return 'second'; } }",
        expect={"[b.who(), new B().who(), new A().who(), b instanceof A]": "[ 'first', 'first', 'second', false ]"},
    )


def test_functions_come_back_by_their_source_and_see_the_names_of_the_session(folder: Path) -> None:
    through(
        folder,
        "let rate = 2; function twice(n) { return n * rate; } const half = async (n) => n / rate\n"
        "const tool = { rate, run(n) { return n + this.rate; }, get double() { return this.rate * 2; } }\n"
        "function* count() { yield* [1, 2]; } const strict = (function () { 'use strict'; return () => this; })\n"
        "Array.prototype.last = function () { return this[this.length - 1]; }",
        "const waited = await Promise.resolve(1); function later() { return waited; }",
        expect={
            "rate = 10; [twice(2), await half(5), tool.run(1), tool.double]": "[ 20, 0.5, 3, 4 ]",
            "[...count()]": "[ 1, 2 ]",
            "[later(), [1, 7].last(), twice.name, twice.length, tool.run.toString()]": (
                "[ 1, 7, 'twice', 1, 'run(n) { return n + this.rate; }' ]"
            ),
        },
    )


def test_an_error_in_a_function_that_came_back_names_the_cell_that_made_it(folder: Path) -> None:
    with node(folder) as first:
        run(first, "1", "\nfunction fail() {\n  throw new Error('here')\n}")
        save(first)
    with node(folder) as second:
        restore(second)
        error = second.run("fail()").done["error"]
        assert error is not None
        assert "at fail (cell 2:3:9)" in error["traceback"]


def test_modules_are_loaded_again(folder: Path) -> None:
    (folder / "local.mjs").write_text("export const one = 1; export function two() { return one + 1; }")
    (folder / "old.js").write_text("let n = 0; module.exports = { next() { n += 1; return n; } }")
    head = through(
        folder,
        "const fs = require('fs'); const { readFileSync, promises } = require('node:fs')\n"
        "import path, { join } from 'path'; import { two } from './local.mjs'\n"
        "const old = require('./old.js'); old.next(); const { log } = console, M = Math",
        expect={
            "[fs.readFileSync === readFileSync, promises === fs.promises, join === path.join, two(), M === Math]": (
                "[ true, true, true, 2, true ]"
            ),
            "old.next()": "1",
        },
    )
    assert "loaded anew" in lost(head)["./old.js"]


def test_names_that_node_gives_its_modules_and_functions_are_the_sessions_own_once_set(folder: Path) -> None:
    through(
        folder,
        "var path = require('fs'); url = 'http://here'; var os = require('os'); fetch = () => 'mine'; var events = 5",
        "console.warn = function (text) { console.log(`W ${text}`); }",
        expect={
            "[path === require('fs'), url, os === require('os'), fetch(), events]": (
                "[ true, 'http://here', true, 'mine', 5 ]"
            ),
            "console.warn.toString().startsWith('function (text)')": "true",
        },
    )


def test_what_cannot_be_kept_is_named_with_its_reason_and_its_cell(folder: Path) -> None:
    with node(folder) as first:
        run(
            first,
            "const fine = 1",
            """
            const closure = (() => { let n = 0; return () => ++n; })(), looped = [];
            for (let i = 0; i < 2; i++) looped.push(() => i);
            const promise = Promise.resolve(1), timer = setTimeout(() => {}, 1e6), gen = (function* () { yield 1; })();
            const proxy = new Proxy({}, {}), weak = new WeakMap(), holder = { a: [{ f: closure }] };
            const socket = new (require("net").Socket)(), emitter = new (require("events"))();
            const shared = new SharedArrayBuffer(1);
            class Secret { #x = 1; get x() { return this.#x; } } const secret = new Secret();
            class Loud { static { console.log("made"); } }
            class Made extends (() => Object)() {} const bound = parseInt.bind(null);
            const self = (function () { return () => this; }).call({}), link = new URL("http://a/b");
            """,
            "/* nothing */ 1",
        )
        head = save(first)
        assert run(first, "closure(); closure()").value == "2"
    assert set(head.names) == {"fine", "Secret"}
    reasons = lost(head)
    expected = {
        "closure": "closes over other variables",
        "looped": "looped.0",
        "promise": "promise",
        "timer": "timer",
        "gen": "generator",
        "proxy": "proxy",
        "weak": "weak map",
        "holder": "holder.a.0.f",
        "socket": "open socket",
        "emitter": "listeners",
        "shared": "shared memory",
        "secret": "private fields",
        "Loud": "static block",
        "Made": "parent is computed",
        "bound": "bound",
        "self": "`this`",
        "link": "URL",
        "(Timeout)": "timer",
    }
    assert set(reasons) == set(expected)
    for name, words in expected.items():
        assert words in reasons[name], (name, reasons[name])
    assert {item["cell"] for item in head.lost} == {2, None}
    with node(folder) as second:
        told = restore(second)
        assert lost(told) == reasons
        assert second.run("[fine, typeof closure, new Secret().x]").value == "[ 1, 'undefined', 1 ]"


def test_the_folder_and_the_environment_of_the_process_come_back_where_the_folder_is_now(folder: Path) -> None:
    before, after = folder / "before", folder / "after"
    before.mkdir()
    with node(before) as first:
        run(
            first,
            "require('fs').mkdirSync('sub'); process.chdir('sub'); var x = 1",
            "process.env.MINE = 'yes'; delete process.env.LANG",
        )
        save(first)
    shutil.copytree(before, after)
    with node(after) as second:
        assert restore(second)["names"] == ["x"]
        assert second.run("[process.cwd(), process.env.MINE, process.env.LANG].join()").value == (
            f"'{after / 'sub'},yes,'"
        )


def test_what_is_over_the_limit_is_lost_and_the_rest_is_kept(folder: Path) -> None:
    with node(folder) as first:
        run(first, "var small = 1, large = 'x'.repeat(3e6), view = Buffer.alloc(3e6), middle = 'y'.repeat(3e5)")
        head = save(first, limit=1_000_000)
        assert (folder / STATE).stat().st_size <= 1_000_000
    assert set(head.names) == {"small", "middle"}
    assert all("over the limit" in reason for reason in lost(head).values())
    assert set(lost(head)) == {"large", "view"}


def test_something_shared_counts_once_against_the_limit(folder: Path) -> None:
    with node(folder) as first:
        run(first, "const text = { s: 'x'.repeat(400_000) }; const many = Array.from({ length: 10 }, () => text)")
        assert set(save(first, limit=1_000_000).names) == {"text", "many"}


def test_names_can_be_left_out(folder: Path) -> None:
    with node(folder) as first:
        run(first, "var a = 1, b = 2; const c = 3")
        assert set(save(first, without=("a", "c")).names) == {"b"}


def test_a_state_survives_a_second_saving(folder: Path) -> None:
    through(
        folder,
        CLASSES,
        "const lock = (() => { let n; return () => n; })()",
        expect={"rex.speak()": "'rex speaks: woof'"},
    )
    with node(folder) as second:
        restore(second)
        run(second, "rex.name = 'max'")
        head = save(second)
        assert "rex" in head.names
        assert not head.lost
    with node(folder) as third:
        restore(third)
        assert third.run("[rex.speak(), Animal.count, rex instanceof Dog]").value == "[ 'max speaks: woof', 2, true ]"


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
def test_no_trap_hangs_or_ends_the_session(folder: Path, trap: str) -> None:
    with node(folder) as first:
        run(first, "var kept = 7", trap)
        head = save(first)
        assert head.problem or "kept" in head.names
        assert first.run("kept").value == "7"
    with node(folder) as second:
        told = restore(second)
        assert second.run("typeof kept").value == ("'undefined'" if told["problem"] else "'number'")


def test_a_trap_in_what_is_written_as_json_ends_by_the_deadline(folder: Path) -> None:
    with node(folder) as first:
        run(first, "var kept = 7; setTimeout(() => { Array.prototype.toJSON = function () { for (;;); }; }, 50); 0")
        time.sleep(0.5)
        assert "over 10 s" in save(first).problem


def state(folder: Path) -> bytes:
    with node(folder) as first:
        run(first, "var x = 1, y = { a: [1, 2] }; const f = () => 1")
        save(first)
    return (folder / STATE).read_bytes()


@pytest.mark.parametrize("damage", ["cut", "empty", "no head", "no body", "noise", "missing", "folder"])
def test_a_damaged_state_is_a_problem_and_leaves_a_clean_interpreter(folder: Path, damage: str) -> None:
    whole = state(folder)
    head, _, body = whole.partition(b"\n")
    target = folder / STATE
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
    with node(folder) as second:
        told = restore(second)
        assert told["problem"].startswith("The variables of JavaScript could not be restored")
        assert told["names"] == []
        assert second.run("[typeof x, typeof y, typeof f]").value == "[ 'undefined', 'undefined', 'undefined' ]"


def test_a_state_of_another_version_of_node_is_refused(folder: Path) -> None:
    head, _, body = state(folder).partition(b"\n")
    other = json.loads(head)
    other["versions"]["node"] = "18.20.1"
    (folder / STATE).write_bytes(json.dumps(other).encode() + b"\n" + body)
    with node(folder) as second:
        assert "saved by Node 18.20.1 and cannot be read by" in restore(second)["problem"]
        assert second.run("typeof x").value == "'undefined'"


def test_a_module_that_is_gone_is_named_and_costs_only_what_needs_it(folder: Path) -> None:
    (folder / "tool.js").write_text("module.exports = { run() { return 1; } }")
    with node(folder) as first:
        run(first, "const tool = require('./tool.js'), holder = { tool }, other = { n: 1 }")
        save(first)
    (folder / "tool.js").unlink()
    with node(folder) as second:
        told = restore(second)
        assert told["names"] == ["other"]
        assert "module ./tool.js" in lost(told)["holder"]
        assert second.run("[typeof tool, other.n]").value == "[ 'undefined', 1 ]"


def test_a_state_is_not_saved_while_a_cell_runs(folder: Path) -> None:
    with node(folder) as first:
        first.control.send(first.interpreter.execute("e9", "await new Promise(() => {})", 9))
        assert "a cell runs" in save(first).problem


def test_a_full_disk_leaves_the_last_state_or_a_problem(folder: Path) -> None:
    with node(folder) as first:
        run(first, "var x = 1")
        (folder / ".state" / "javascript.part").symlink_to("/dev/full")
        order = first.interpreter.save(str(STATE), limit=LIMIT)
        assert order is not None
        first.control.send(order)
        assert run(first, "x").value == "1"
        assert not (folder / STATE).exists()
