"""Compiles and runs one cell with a notebook's rules, on a shorter way than IPython's own `run_cell`."""

from __future__ import annotations
import __future__

import ast
import asyncio
import re
from inspect import CO_COROUTINE
from types import CodeType
from typing import Any, cast

from IPython.core import interactiveshell

from executor.languages.shell import NotebookShell
from executor.languages.traceback import cell_name

_FLAGS = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_FUTURE = 0
for _name in __future__.all_feature_names:
    _FUTURE |= getattr(__future__, _name).compiler_flag
_FIRST_WORD = re.compile(r"\s*([^\W\d]\w*)")
_SEMICOLON = re.compile(rb"\s*;")
_compile = compile
_eval = eval
_new_event_loop = asyncio.new_event_loop
_set_event_loop = asyncio.set_event_loop

Step = tuple[CodeType, bool]
"""Code, and whether its value is shown."""


class Cells:
    """Runs cells in the shell's namespace."""

    def __init__(self, shell: NotebookShell) -> None:
        self._shell = shell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._callbacks = shell.events.callbacks
        self._transformers = self._installed_transformers()

    def run(self, code: str, number: int) -> None:
        """Run cell `number`; values go to the shell's display hook, exceptions to the caller."""
        shell = self._shell
        name = cell_name(number)
        shell.compile.begin(number)
        if not code.strip():
            return
        if not code.endswith("\n"):
            code += "\n"
        self._remember(code, number, name)
        shell.user_ns.pop("__warningregistry__", None)
        if self._loop is not None:
            _set_event_loop(self._loop)  # asyncio.run leaves none behind
        callbacks = self._callbacks
        if len(callbacks["pre_execute"]) > 1 or any(callbacks[event] for event in _EVENTS):
            self._run_with_events(code, name)
        else:
            self._run(code, name)

    def _run(self, code: str, name: str) -> None:
        steps = self._steps(code, name)
        if any(step.co_flags & CO_COROUTINE for step, _ in steps):
            self._await(self._run_async(steps))
            return
        names, show = self._shell.user_ns, self._shell.displayhook
        for step, shown in steps:
            value = _eval(step, names)
            if shown:
                show(value)

    async def _run_async(self, steps: list[Step]) -> None:
        names, show = self._shell.user_ns, self._shell.displayhook
        for step, shown in steps:
            value = _eval(step, names)
            if step.co_flags & CO_COROUTINE:
                value = await value
            if shown:
                show(value)

    def _await(self, work: Any) -> None:
        """Run a coroutine on the session's loop, whose tasks go on with the next cell that awaits."""
        if self._loop is None or self._loop.is_closed():
            self._loop = _new_event_loop()
            _set_event_loop(self._loop)
        loop = self._loop
        task = loop.create_task(work)
        try:
            loop.run_until_complete(task)
        except BaseException:
            self._cancel(loop, task)
            raise

    def _cancel(self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
        """End what was interrupted: it must not go on in the next cell."""
        if not task.done():
            task.cancel()
            loop.run_until_complete(asyncio.wait([task], timeout=0.5))
            try:
                task.result()
            except asyncio.CancelledError as error:  # its traceback knows the cell's line, the loop's does not
                raise KeyboardInterrupt().with_traceback(error.__traceback__) from None
            except BaseException:
                return

    def _run_with_events(self, code: str, name: str) -> None:
        """The same with IPython's events around it, for extensions such as autoreload."""
        events = self._shell.events
        untyped: Any = interactiveshell
        info = untyped.ExecutionInfo(code, True, False, True, None, None, transformed_cell=code)
        result = untyped.ExecutionResult(info)
        events.trigger("pre_execute")
        events.trigger("pre_run_cell", info)
        try:
            self._run(code, name)
        except BaseException as error:
            result.error_in_exec = error
            raise
        finally:
            events.trigger("post_execute")
            events.trigger("post_run_cell", result)

    def _remember(self, code: str, number: int, name: str) -> None:
        self._shell.remember_source(name, code.splitlines(keepends=True))
        self._shell.remember_input(number, code)
        self._shell.execution_count = number + 1

    def _steps(self, code: str, name: str) -> list[Step]:
        shell = self._shell
        tree, source = self._parse(code, name)
        if shell.ast_transformers:
            tree = shell.transform_ast(tree)  # type: ignore[no-untyped-call]
        nodes = tree.body
        shown = self._shown(nodes, source)
        steps: list[Step] = []
        flags = shell.compile.flags & _FUTURE | _FLAGS
        at = 0
        while at < len(nodes):
            node = nodes[at]
            if at in shown and isinstance(node, ast.Expr):
                step = _compile(ast.Expression(node.value), name, "eval", flags, True)
                at += 1
            else:
                until = at + 1
                while until < len(nodes) and until not in shown:
                    until += 1
                step = _compile(ast.Module(nodes[at:until], []), name, "exec", flags, True)
                at = until
            steps.append((step, isinstance(node, ast.Expr) and at - 1 in shown))
            flags |= step.co_flags & _FUTURE
        shell.compile.flags |= flags & _FUTURE
        return steps

    def _shown(self, nodes: list[ast.stmt], source: str) -> frozenset[int]:
        """Which statements' values are shown; `InteractiveShell.ast_node_interactivity` may say so."""
        kind = self._shell.ast_node_interactivity
        last = len(nodes) - 1
        if not nodes or kind == "none":
            return frozenset()
        if kind == "last_expr_or_assign" and isinstance(nodes[last], (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            statement: Any = nodes[last]
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            if isinstance(target, ast.Name) and not _silenced(statement, source):
                value = ast.Expr(ast.copy_location(ast.Name(target.id, ast.Load()), target))
                nodes.append(ast.copy_location(value, statement))
                return frozenset({last + 1})
        candidates = range(last + 1) if kind == "all" else range(last, last + 1)
        return frozenset(
            at for at in candidates if isinstance(nodes[at], ast.Expr) and not _silenced(nodes[at], source)
        )

    def _parse(self, code: str, name: str) -> tuple[ast.Module, str]:
        """The cell as Python, and its source.

        What is Python already is not looked at twice; magics, `!` and `?` are no Python and take IPython's way.
        """
        shell = self._shell
        flags = shell.compile.flags & _FUTURE | _FLAGS | ast.PyCF_ONLY_AST
        if not self._special(code):
            try:
                return _compile(code, name, "exec", flags, True), code
            except SyntaxError as error:
                transformed = self._transformed(code)
                if transformed == code:
                    raise error from None
        else:
            transformed = self._transformed(code)
        shell.user_ns.setdefault("get_ipython", shell.get_ipython)
        return _compile(transformed, name, "exec", flags, True), transformed

    def _transformed(self, code: str) -> str:
        blank = len(code) - len(code.lstrip("\n"))
        result: str = self._shell.transform_cell(code)  # type: ignore[no-untyped-call]
        return "\n" * blank + result  # IPython drops leading empty lines, and line numbers with them

    def _special(self, code: str) -> bool:
        """Whether valid Python may mean something else to IPython: `ls -l`, `In [1]: x`, or a new transformer."""
        if self._installed_transformers() != self._transformers or code.startswith("In ["):
            return True
        if code.count("\n") > 1 or not (match := _FIRST_WORD.match(code)):
            return False
        word, shell = match[1], self._shell
        if word in shell.user_ns or not shell.automagic:
            return False
        return word in shell.magics_manager.magics["line"] or cast(Any, shell.alias_manager).is_alias(word)

    def _installed_transformers(self) -> tuple[int, int, int]:
        manager = self._shell.input_transformer_manager
        return (
            len(manager.cleanup_transforms) + len(manager.line_transforms),
            len(manager.token_transformers),
            len(self._shell.input_transformers_post),
        )


_EVENTS = ("pre_run_cell", "post_execute", "post_run_cell")


def _silenced(node: ast.stmt, source: str) -> bool:
    """Whether a semicolon follows `node`."""
    if ";" not in source or node.end_lineno is None or node.end_col_offset is None:
        return False
    line = source.split("\n")[node.end_lineno - 1].encode("utf-8", "surrogatepass")
    return _SEMICOLON.match(line, node.end_col_offset) is not None
