"""What a JavaScript session cannot keep is named, with its reason, and costs nothing else."""

from __future__ import annotations

from pathlib import Path

from javascript_state import STATE, lost, node, restore, run, save


def test_what_cannot_be_kept_is_named_with_its_reason_and_its_cell(tmp_path: Path) -> None:
    with node(tmp_path) as first:
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
    with node(tmp_path) as second:
        told = restore(second)
        assert lost(told) == reasons
        assert second.run("[fine, typeof closure, new Secret().x]").value == "[ 1, 'undefined', 1 ]"


def test_strict_mode_is_looked_for_behind_any_number_of_comments(tmp_path: Path) -> None:
    comments = "// const a = 1; \n/* b */ /* c ** /; **/ \n" * 200
    with node(tmp_path) as first:
        run(first, comments + "; 'use strict'; const free = () => 1; 0")  # after a semicolon it is just a text
        assert save(first).names == ("free",)
        run(first, comments + "'use strict'; const bound = () => 1; 0")
        assert set(lost(save(first)).values()) == {"function of a session that uses strict mode"}


def test_keys_are_lost_whatever_class_they_pretend_to_be_of(tmp_path: Path) -> None:
    with node(tmp_path) as first:
        run(
            first,
            """
            class Plain {} const plain = new Plain(), many = Array.from({ length: 100 }, () => new Plain());
            const secret = require("crypto").createSecretKey(Buffer.alloc(16)), holder = { secret };
            const web = await globalThis.crypto.subtle.importKey("raw", Buffer.alloc(16), "AES-GCM", true, ["encrypt"]);
            class Mask {} const masked = require("crypto").createSecretKey(Buffer.alloc(16));
            Object.setPrototypeOf(masked, Mask.prototype); 0
            """,
        )
        head = save(first)
    assert set(head.names) == {"Plain", "plain", "many", "Mask"}
    assert lost(head) == {
        "secret": "key",
        "holder": "key, at holder.secret",
        "web": "key",
        "masked": "key",
    }


def test_what_is_over_the_limit_is_lost_and_the_rest_is_kept(tmp_path: Path) -> None:
    with node(tmp_path) as first:
        run(first, "var small = 1, large = 'x'.repeat(3e6), view = Buffer.alloc(3e6), middle = 'y'.repeat(3e5)")
        head = save(first, limit=1_000_000)
        assert (tmp_path / STATE).stat().st_size <= 1_000_000
    assert set(head.names) == {"small", "middle"}
    assert all("over the limit" in reason for reason in lost(head).values())
    assert set(lost(head)) == {"large", "view"}


def test_something_shared_counts_once_against_the_limit(tmp_path: Path) -> None:
    with node(tmp_path) as first:
        run(first, "const text = { s: 'x'.repeat(400_000) }; const many = Array.from({ length: 10 }, () => text)")
        assert set(save(first, limit=1_000_000).names) == {"text", "many"}


def test_names_can_be_left_out(tmp_path: Path) -> None:
    with node(tmp_path) as first:
        run(first, "var a = 1, b = 2; const c = 3")
        assert set(save(first, without=("a", "c")).names) == {"b"}


def test_a_module_that_is_gone_is_named_and_costs_only_what_needs_it(tmp_path: Path) -> None:
    (tmp_path / "tool.js").write_text("module.exports = { run() { return 1; } }")
    with node(tmp_path) as first:
        run(first, "const tool = require('./tool.js'), holder = { tool }, other = { n: 1 }")
        save(first)
    (tmp_path / "tool.js").unlink()
    with node(tmp_path) as second:
        told = restore(second)
        assert told["names"] == ["other"]
        assert "module ./tool.js" in lost(told)["holder"]
        assert second.run("[typeof tool, other.n]").value == "[ 'undefined', 1 ]"
