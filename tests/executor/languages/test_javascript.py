"""JavaScript cells in a real node."""

from __future__ import annotations

import base64
import os
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Leader, wait_for

from executor.languages.javascript import JavaScript


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Leader]:
    with Leader(JavaScript(folder=tmp_path, memory_mb=512), tmp_path) as leader:
        yield leader


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + b"\x80" * width for _ in range(height)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_variables_functions_and_classes_last(node: Leader) -> None:
    node.run("const a = 1; let b = 2; var c = 3; function f() { return a + b + c } class K { x = f() }")
    assert node.run("new K()").value == "K { x: 6 }"
    assert node.run("const a = 10").done["status"] == "ok"
    assert node.run("class K { y = 1 }; f()").value == "15"
    node.run("const kept = 7; throw new Error('after')")
    assert node.run("kept").value == "7"


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("1+1", "2"),
        ("'it'", "'it'"),
        ("undefined", None),
        ("let q = 1", None),
        ("null", "null"),
        ("10n ** 20n", "100000000000000000000n"),
        ("-0", "-0"),
        ("NaN", "NaN"),
        ("Symbol('s')", "Symbol(s)"),
        ("[1, , 'x']", "[ 1, <1 empty item>, 'x' ]"),
        ("new Map([[1, { a: [1, [2, [3]]] }]])", "Map(1) { 1 => { a: [ 1, [Array] ] } }"),
        ("new (class Point { x = 1; #secret = 2 })()", "Point { x: 1 }"),
        ("const o = {}; o.self = o; o", "<ref *1> { self: [Circular *1] }"),
        ("(function named() {})", "[Function: named]"),
        ("class A {}; A", "[class A]"),
        ("Promise.resolve(4)", "Promise { 4 }"),
        ("await Promise.resolve(4)", "4"),
        ("await new Promise(r => setTimeout(r, 20, 'late'))", "'late'"),
        ("({ get g() { return 1 } })", "{ g: [Getter] }"),
        ("new Proxy({ a: 1 }, {})", "Proxy [ { a: 1 }, {} ]"),
        ("Buffer.from('hi')", "<Buffer 68 69>"),
        ("for (let i = 0; i < 3; i++) i", "2"),
        ("{ a: 1 }", "{ a: 1 }"),
    ],
)
def test_the_last_value_is_shown_as_nodes_repl_shows_it(node: Leader, code: str, shown: str | None) -> None:
    cell = node.run(code)
    assert cell.done["status"] == "ok"
    assert cell.done["return_code"] == 0
    assert cell.value == shown


def test_an_error_is_shown_with_its_own_frames_only(node: Leader) -> None:
    assert node.run("new RangeError('no')").value == "RangeError: no\n    at cell 1:1:1"


def test_console_goes_to_its_stream_and_is_there_when_the_cell_ends(node: Leader) -> None:
    cell = node.run("console.log('o'.repeat(200000)); console.error('e'); console.table([{ a: 1 }])")
    assert cell.out.startswith("o" * 200000)
    assert "│ a │" in cell.out
    assert cell.err == "e\n"


def test_output_of_a_worker_thread_and_a_child_process_is_captured(node: Leader) -> None:
    cell = node.run("""
        const { Worker } = require('node:worker_threads');
        await new Promise((r) => new Worker('console.log("thread")', { eval: true }).on('exit', r));
        require('node:child_process').execFileSync('/bin/sh', ['-c', 'echo child; echo bad >&2'], { stdio: 'inherit' });
    """)
    assert "thread\n" in cell.out
    assert "child\n" in cell.out
    assert cell.err == "bad\n"


def test_a_child_process_inherits_no_channel(node: Leader) -> None:
    cell = node.run("require('child_process').execSync('ls /proc/self/fd').toString().trim().split('\\n').length")
    assert cell.value == "4"  # three streams, and the folder that ls reads


def test_require_module_and_exports_are_those_of_a_file_in_the_folder(node: Leader) -> None:
    (node.folder / "lib.js").write_text("exports.n = 5")
    assert node.run("require('./lib').n + require('node:path').sep").value == "'5/'"
    assert node.run("[__dirname === process.cwd(), path.dirname(__filename) === __dirname]").value == "[ true, true ]"
    assert node.run("if (require.main === module) 'main'").value == "'main'"
    assert node.run("module.exports = { a: 1 }; fs.existsSync(__dirname)").value == "true"
    assert node.run("const fs = require('fs'); const path = require('path'); path.join('a', 'b')").value == "'a/b'"


def test_imports_of_every_form_work(node: Leader) -> None:
    (node.folder / "file.mjs").write_text("export default 1; export const two = 2; export { two as 'a b' }")
    (node.folder / "data.json").write_text('{"k": 3}')
    cell = node.run("""import os from 'node:os'
import { readFileSync as read, existsSync } from "fs"; import * as p from 'path'
import 'node:util'
import one, { two, 'a b' as ab } from './file.mjs'
import data from './data.json' with { type: 'json' }
[typeof os.cpus, typeof read, existsSync('file.mjs'), p.sep, one, two, ab, data.k]""")
    assert cell.done["error"] is None
    assert cell.value is not None
    assert " ".join(cell.value.split()) == "[ 'function', 'function', true, '/', 1, 2, 2, 3 ]"
    assert node.run("(await import('./file.mjs')).two + one").value == "3"
    assert node.run("const load = async (n) => (await import(n)).default; await load('./file.mjs')").value == "1"
    assert node.run("import { two as later } from './file.mjs'; later").value == "2"
    assert (
        node.run("usedAbove(); function usedAbove() { return hoisted.sep }\nimport hoisted from 'path'").value == "'/'"
    )
    assert node.run("import.meta.dirname === __dirname").value == "true"
    assert node.run("export const e = 4; export default function g() { return e }").done["status"] == "ok"
    assert node.run("g()").value == "4"


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("\"import('x')\"", "\"import('x')\""),
        ("'import a from \\'b\\''", "\"import a from 'b'\""),
        ("`import x from 'y' ${1 + 1} ${`import('${2}')`}`", "\"import x from 'y' 2 import('2')\""),
        ("/import('x')[/]/.source", "\"import('x')[/]\""),
        ("4 / 2 / 1 // import('x')", "2"),
        ("/* import x from 'y' */ 3", "3"),
        ("({ import: 1, export: 2 }).import", "1"),
        ("let x = 8\nlet i = 2\nx /i/ 1 // import", "4"),
        ("`${(await import('node:path')).sep}`", "'/'"),
        ("class C { static import() { return 'own' } }; C.import()", "'own'"),
    ],
)
def test_only_real_imports_are_rewritten(node: Leader, code: str, shown: str) -> None:
    cell = node.run(code)
    assert cell.done["error"] is None
    assert cell.value == shown


def test_packages_of_the_session_are_found(node: Leader) -> None:
    package = node.folder / ".packages" / "node" / "node_modules" / "dep"
    package.mkdir(parents=True)
    (package / "package.json").write_text('{"main": "i.js"}')
    (package / "i.js").write_text("module.exports = 41")
    (node.folder / "user.mjs").write_text("import dep from 'dep'; export default dep + 1")
    cell = node.run("import dep from 'dep'; import user from './user.mjs'; [dep, user, require('dep')]")
    assert cell.value == "[ 41, 42, 41 ]"


def test_missing_modules_are_told_in_words(node: Leader) -> None:
    for code in ("import x from 'nowhere'", "await import('nowhere')", "require('nowhere')"):
        error = node.run(code).done["error"]
        assert error is not None
        assert "nowhere" in error["message"]
        assert "VM_DYNAMIC" not in error["traceback"]
    error = node.run("import { nope } from 'fs'").done["error"]
    assert error is not None
    assert "does not provide an export named 'nope'" in error["message"]
    error = node.run("let ok = 1\nimport { from 'fs'").done["error"]
    assert error is not None
    assert (error["type"], error["line"]) == ("SyntaxError", 2)


@pytest.mark.parametrize(
    ("code", "kind", "message", "line"),
    [
        ("\nlet x = nope", "ReferenceError", "nope is not defined", 2),
        ("const y = );", "SyntaxError", "Unexpected token ')'", 1),
        ("1\n\nfoo bar", "SyntaxError", "Unexpected identifier 'bar'", 3),
        ("let z =", "SyntaxError", "Unexpected end of input", 1),
        ("function f() {\n throw new TypeError('in')\n}\nf()", "TypeError", "in", 2),
        ("await null\nawait Promise.reject(new Error('async'))", "Error", "async", 2),
        ("JSON.parse('{')", "SyntaxError", "Expected property name", 1),
        ("throw 'text'", "string", "text", None),
        ("throw null", "null", "null", None),
        ("throw 10n", "bigint", "10n", None),
        ("display({ 'text/html': 'x'.repeat(9e6) })", "RangeError", "at most 8 MB", 1),
        ("const e = new SyntaxError('x'.repeat(2e7)); e.stack = ''; throw e", "SyntaxError", "xxx", 1),
        ("const e = new Error('m'); e.stack = { odd: 1 }; e.name = {}; throw e", "[object Object]", "m", None),
        ("throw { code: 5 }", "Object", "{ code: 5 }", None),
        ("class MyError extends Error { name = 'MyError' }; throw new MyError('own')", "MyError", "own", 1),
        ("({ [require('util').inspect.custom]() { throw new Error('in inspect') } })", "Error", "in inspect", 1),
    ],
)
def test_errors_have_name_message_and_line(node: Leader, code: str, kind: str, message: str, line: int | None) -> None:
    cell = node.run(code)
    error = cell.done["error"]
    assert error is not None
    assert cell.done["status"] == "error"
    assert cell.done["return_code"] == 1
    assert error["type"] == kind
    assert message in error["message"]
    if line is not None:
        assert error["line"] == line
    assert "node.mjs" not in error["traceback"]
    assert "inspector" not in error["traceback"]
    assert node.run("1+1").value == "2"


def test_a_traceback_names_the_cells_it_passes(node: Leader) -> None:
    node.run("function broken() {\n  throw new Error('x')\n}")
    error = node.run("\nbroken()").done["error"]
    assert error is not None
    assert error["traceback"] == "Uncaught Error: x\n    at broken (cell 1:2:9)\n    at cell 2:2:1"
    assert error["line"] == 2


def test_a_timer_outlives_its_cell_and_its_error_is_told_with_its_cells_name(node: Leader) -> None:
    tick = "ticks++; if (ticks === 4) fs.writeFileSync('ticked', '')"
    assert node.run(f"var ticks = 0; var timer = setInterval(() => {{ {tick} }}, 5); 'set'").value == "'set'"
    thrown = "fs.writeFileSync('thrown', ''); throw new Error('from one')"
    assert node.run(f"setTimeout(() => {{ {thrown} }}, 30); 'ok'").done["status"] == "ok"
    wait_for(node.folder / "ticked", node.folder / "thrown")
    cell = node.run("clearInterval(timer); ticks > 3")
    assert cell.value == "true"
    assert cell.done["status"] == "ok"
    assert "[cell 2] Uncaught Error: from one" in cell.err
    assert node.run("1").err == ""


def test_an_error_of_an_earlier_cell_does_not_fail_the_running_one(node: Leader) -> None:
    node.run("setTimeout(() => Promise.reject(new Error('early')), 50); 0")
    cell = node.run("await new Promise(r => setTimeout(r, 200)); 'unhurt'")
    assert cell.value == "'unhurt'"
    assert cell.done["status"] == "ok"
    assert "[cell 1] Uncaught Error: early" in cell.err


def test_an_unhandled_rejection_belongs_to_its_cell(node: Leader) -> None:
    cell = node.run("Promise.reject(new Error('lost')); 5")
    error = cell.done["error"]
    assert error is not None
    assert (cell.done["status"], error["message"], error["line"]) == ("error", "lost", 1)
    assert cell.value == "5"
    error = node.run("setTimeout(() => { throw new Error('now') }, 10); await new Promise(() => {})").done["error"]
    assert error is not None
    assert error["message"] == "now"
    assert node.run("1+1").value == "2"


def test_a_guests_own_handler_of_uncaught_errors_is_called(node: Leader) -> None:
    node.run("var seen = ''; process.once('uncaughtException', (e) => { seen = e.message })")
    node.run("setTimeout(() => { throw new Error('mine') }, 5); await new Promise(r => setTimeout(r, 100))")
    assert node.run("seen").value == "'mine'"


@pytest.mark.parametrize(
    "code",
    [
        "while (true) {}",
        "try { while (true) {} } finally { console.log('never') }",
        "await new Promise(() => {})",
        "await null; for (;;) await null",
        "setTimeout(() => { while (true) {} }, 10); await new Promise(() => {})",
        "process.nextTick(() => { while (true) {} }); await new Promise(() => {})",
        "require('fs').stat('.', () => { while (true) {} }); await new Promise(() => {})",
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)",
        "require('child_process').execSync('sleep 100')",
        "require('vm').runInNewContext('while (true) {}')",
        "/(a+)+b/.test('a'.repeat(60))",
    ],
)
def test_a_stop_keeps_the_variables(node: Leader, code: str) -> None:
    node.run("const kept = 41; var ticks = 0; setInterval(() => ticks++, 5); 0")
    cell = node.run(code, interrupt_after=0.2, seconds=15)
    assert cell.done["status"] == "interrupted"
    assert cell.seconds < 5
    assert node.run("kept + 1").value == "42"
    assert node.run("ticks = 0; while (ticks < 3) await new Promise(r => setTimeout(r, 10)); true").value == "true"


def test_twenty_stops_in_a_row_leave_a_session_that_works(node: Leader) -> None:
    node.run("const kept = 1")
    for n in range(20):
        code = "while (true) {}" if n % 2 else "await new Promise(() => {})"
        assert node.run(code, interrupt_after=0.03).done["status"] == "interrupted"
    assert node.run("kept").value == "1"


def test_a_stop_that_comes_too_late_does_nothing(node: Leader) -> None:
    node.run("1")
    node.interrupt()
    time.sleep(0.1)
    assert node.run("2").value == "2"
    assert node.run("for (const until = Date.now() + 200; Date.now() < until;); 3").value == "3"


def test_promises_that_never_settle_do_not_end_the_process_when_they_are_collected(node: Leader) -> None:
    for _ in range(5):
        node.run("await new Promise(() => {})", interrupt_after=0.02)
    code = "require('v8').setFlagsFromString('--expose-gc'); const gc = require('vm').runInNewContext('gc')"
    node.run(f"{code}; for (let i = 0; i < 3; i++) {{ gc(); await new Promise(r => setTimeout(r, 10)) }}")
    assert node.run("'alive'").value == "'alive'"


def test_process_exit_ends_the_process_with_its_code_and_nothing_is_said(node: Leader) -> None:
    cell = node.run("console.log('before'); process.on('exit', () => console.log('exit')); process.exit(3)")
    assert cell.exited == 3
    assert cell.out == "before\nexit\n"
    assert cell.err == ""


def test_a_gigabyte_is_not_kept_in_memory(node: Leader) -> None:
    cell = node.run(
        "const line = 'x'.repeat(65535); for (let i = 0; i < 16384; i++) console.log(line);"
        "process.memoryUsage().rss / 2**20",
        seconds=90,
    )
    assert cell.stdout_bytes == 2**30
    assert cell.value is not None
    assert float(cell.value) < 300


def test_a_heap_that_is_full_ends_node_before_the_session(node: Leader) -> None:
    cell = node.run("const all = []; for (;;) all.push(new Array(1e6).fill(0.5).map(String))", seconds=60)
    assert cell.exited is not None
    assert "heap out of memory" in cell.err


def later(node: Leader) -> str:
    """What came between two cells, once `late` was written, with a cell."""
    wait_for(node.folder / "late")
    return node.run("0").out


def test_pictures_and_mime_bundles_are_displayed(node: Leader) -> None:
    (node.folder / "p.png").write_bytes(png(7, 5))
    cell = node.run("""
        display({ 'text/html': '<b>x</b>', 'application/json': { a: 1 } });
        display(fs.readFileSync('p.png'));
        display({ 'image/png': fs.readFileSync('p.png').toString('base64'), 'text/plain': 'a picture' });
        display({ a: [1] }, 'text');
    """)
    html, picture, both, plain, text = cell.shown
    assert html["data"] == {"text/html": "<b>x</b>", "application/json": {"a": 1}}
    assert (picture["picture"]["width"], picture["picture"]["height"]) == (7, 5)
    assert base64.b64decode(picture["picture"]["data"]) == png(7, 5)
    assert both["data"] == {"text/plain": "a picture"}
    assert both["picture"]["mime"] == "image/png"
    assert plain["data"] == {"text/plain": "{ a: [ 1 ] }"}
    assert text["data"] == {"text/plain": "'text'"}
    code = "setTimeout(() => { display({ late: 1 }); fs.writeFileSync('late', '') }, 20); await 0"
    assert "{ late: 1 }" in node.run(code).out + later(node)


def test_a_broken_realm_does_not_break_the_driver(node: Leader) -> None:
    node.run("""
        Array.prototype.push = () => { throw 1 }; Map.prototype.get = null; JSON.stringify = () => 'no';
        globalThis.Promise = null; globalThis.setTimeout = null; globalThis.setImmediate = null;
        console.log = null; Error.prepareStackTrace = () => 'gone'; delete globalThis.Buffer;
        Object.prototype.polluted = { type: 'x' }; process.removeAllListeners(); delete globalThis.process; 0
    """)
    assert node.run("1 + 1").value == "2"
    assert node.run("throw new Error('still told')").done["status"] == "error"
    assert node.run("while (true) {}", interrupt_after=0.1).done["status"] == "interrupted"


def test_a_cell_of_one_megabyte_runs(node: Leader) -> None:
    assert node.run("'" + "ä" * 500_000 + "'.length").value == "500000"
    assert node.run("// import\n" + "x = 1;\n" * 100_000 + "typeof await import('fs')").value == "'object'"


def test_empty_cells_and_unusual_ends_are_fine(node: Leader) -> None:
    for code in ("", " ", "// only a comment", "1 // tail", "#!/usr/bin/env node\n1", "'use strict'; 1"):
        assert node.run(code).done["status"] == "ok"


def test_node_goes_when_its_leader_is_gone(node: Leader) -> None:
    node.run("0")
    node.control.close()
    assert node.process.wait(10) != 0


def test_how_long_one_plus_one_takes_and_what_an_idle_node_weighs(node: Leader) -> None:
    with Path(f"/proc/{node.process.pid}/smaps_rollup").open() as file:
        weight = [line.split()[1] for line in file if line.startswith(("Pss:", "Private_Dirty:"))]
    assert node.run("1+1").value == "2"
    times = sorted(node.run("1+1").seconds for _ in range(200))
    print(
        f"node: 1+1 {times[100] * 1000:.2f} ms p50; idle PSS {weight[0]} kB, "
        f"private dirty {weight[1]} kB; {os.cpu_count()} cores"
    )
