"""JavaScript and bash across parking, in the sandbox and through the whole executor."""

from __future__ import annotations

from collections.abc import Callable

from executor import Executor, Settings


async def test_javascript_and_bash_go_on_where_they_were_parked(settings: Callable[..., Settings]) -> None:
    async with Executor(settings(max_sessions=1)) as executor:
        a = {"owner": "a", "conversation": "1"}
        made = """
        const fs = require("fs"); class Point { constructor(x) { this.x = x; } twice() { return this.x * 2; } }
        const points = new Map([["p", new Point(4)]]); let same = points.get("p");
        const counter = (() => { let n; return () => n })();
        process.chdir(fs.mkdtempSync("here-")); fs.writeFileSync("note.txt", "kept");
        """
        assert (await executor.execute(made, language="javascript", **a)).success
        assert (
            await executor.execute("cd here-*; name='a b'; hello() { cat note.txt; }", language="bash", **a)
        ).success
        await executor.execute("1", language="python", owner="b", conversation="2")
        shown = "[points.get('p').twice(), points.get('p') === same, `${fs.readFileSync('note.txt')}`, typeof counter]"
        result = await executor.execute(f"{shown}.join()", language="javascript", **a)
        assert result.success, result
        assert "8,true,kept,undefined" in str(result.outputs)
        assert any("counter" in notice and "closes over" in notice for notice in result.notices), result.notices
        assert any("bash: restored: name, hello()" in notice for notice in result.notices), result.notices
        result = await executor.execute("hello; echo $name ${PWD##*/here-*}", language="bash", **a)
        assert result.stdout == "kepta b\n", result
