"""What a JavaScript session holds is saved to a file and comes back in another process."""

from __future__ import annotations

import shutil
from pathlib import Path

from javascript_state import lost, node, restore, run, save, through

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


def test_data_comes_back_as_it_was(tmp_path: Path) -> None:
    through(
        tmp_path,
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


def test_const_stays_const_and_let_stays_let(tmp_path: Path) -> None:
    with node(tmp_path) as first:
        run(first, "const fixed = 1; let loose = 1; var old = 1; class Kind {}")
        save(first)
    with node(tmp_path) as second:
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


def test_classes_and_their_instances_come_back(tmp_path: Path) -> None:
    through(
        tmp_path,
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


def test_a_parent_that_has_been_declared_again_is_still_the_parent(tmp_path: Path) -> None:
    through(
        tmp_path,
        "class A { who() { return 'first'; } }; class B extends A {}; const b = new B()",
        "class A { who() { return 'second'; } }",
        expect={"[b.who(), new B().who(), new A().who(), b instanceof A]": "[ 'first', 'first', 'second', false ]"},
    )


def test_functions_come_back_by_their_source_and_see_the_names_of_the_session(tmp_path: Path) -> None:
    through(
        tmp_path,
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


def test_an_error_in_a_function_that_came_back_names_the_cell_that_made_it(tmp_path: Path) -> None:
    with node(tmp_path) as first:
        run(first, "1", "\nfunction fail() {\n  throw new Error('here')\n}")
        save(first)
    with node(tmp_path) as second:
        restore(second)
        error = second.run("fail()").done["error"]
        assert error is not None
        assert "at fail (cell 2:3:9)" in error["traceback"]


def test_modules_are_loaded_again(tmp_path: Path) -> None:
    (tmp_path / "local.mjs").write_text("export const one = 1; export function two() { return one + 1; }")
    (tmp_path / "old.js").write_text("let n = 0; module.exports = { next() { n += 1; return n; } }")
    head = through(
        tmp_path,
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


def test_names_that_node_gives_its_modules_and_functions_are_the_sessions_own_once_set(tmp_path: Path) -> None:
    through(
        tmp_path,
        "var path = require('fs'); url = 'http://here'; var os = require('os'); fetch = () => 'mine'; var events = 5",
        "console.warn = function (text) { console.log(`W ${text}`); }",
        expect={
            "[path === require('fs'), url, os === require('os'), fetch(), events]": (
                "[ true, 'http://here', true, 'mine', 5 ]"
            ),
            "console.warn.toString().startsWith('function (text)')": "true",
        },
    )


def test_the_folder_and_the_environment_of_the_process_come_back_where_the_folder_is_now(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
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


def test_a_state_survives_a_second_saving(tmp_path: Path) -> None:
    through(
        tmp_path,
        CLASSES,
        "const lock = (() => { let n; return () => n; })()",
        expect={"rex.speak()": "'rex speaks: woof'"},
    )
    with node(tmp_path) as second:
        restore(second)
        run(second, "rex.name = 'max'")
        head = save(second)
        assert "rex" in head.names
        assert not head.lost
    with node(tmp_path) as third:
        restore(third)
        assert third.run("[rex.speak(), Animal.count, rex instanceof Dog]").value == "[ 'max speaks: woof', 2, true ]"
