"""What names stand for in a cell: what it imported, and which risky names it has made its own."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable

from executor.policy.budget import Budget
from executor.policy.python_tree import children

_MAX_CHAIN = 12
"""Dots in a name; longer ones are taken for none."""

# What the worker has ready in every session
_READY = {
    "np": "numpy",
    "pd": "pandas",
    "plt": "matplotlib.pyplot",
    "json": "json",
    "math": "math",
    "random": "random",
    "base64": "base64",
    "io": "io",
}

Function = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


class Imports:
    """The modules that a cell has imported, and the full name that each of its names stands for."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self._aliases = dict(_READY)

    def __contains__(self, name: str) -> bool:
        return name in self._aliases

    def add(self, module: str, *, name: str = "", alias: str | None = None) -> None:
        """`import module as alias`, or with `name`, `from module import name as alias`."""
        top = module.partition(".")[0]
        self.modules.add(top)
        if name:
            self._aliases[alias or name] = f"{module}.{name}"
        else:
            # `import os.path` binds `os`, whose name is already the beginning of the full one
            self._aliases[alias or top] = module if alias else top

    def has_root(self, node: ast.expr) -> bool:
        """Whether an expression is something of a module."""
        for _ in range(_MAX_CHAIN):
            if isinstance(node, ast.Name):
                return node.id in self._aliases
            if not isinstance(node, ast.Attribute):
                return False
            node = node.value
        return False

    def full_name(self, node: ast.expr) -> str:
        """The full name that an expression stands for, through this cell's imports; empty where it is none."""
        parts: list[str] = []
        for _ in range(_MAX_CHAIN):
            if isinstance(node, ast.Name):
                root = self._aliases.get(node.id)
                if root is None:
                    return ""
                return ".".join((root, *reversed(parts)))
            if not isinstance(node, ast.Attribute):
                return ""
            parts.append(node.attr)
            node = node.value
        return ""


class Own:
    """Which of the `risky` names are a cell's or a function's own, so no longer what they are elsewhere."""

    def __init__(self, risky: Collection[str], budget: Budget) -> None:
        self.names: set[str] = set()
        """The cell's own, up to the statement that was bound last."""
        self._risky = risky
        self._budget = budget

    def of_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> frozenset[str]:
        """Risky names that are a function's own: its parameters and what it assigns."""
        a = node.args
        parameters = [*a.posonlyargs, *a.args, *a.kwonlyargs, *(x for x in (a.vararg, a.kwarg) if x is not None)]
        own = {p.arg for p in parameters if p.arg in self._risky}
        if not isinstance(node, ast.Lambda):
            own |= self.stored(node.body)
        return frozenset(own)

    def stored(self, roots: Iterable[ast.AST]) -> frozenset[str]:
        """What is assigned below, functions and classes in there left out."""
        names: set[str] = set()
        outer: set[str] = set()
        stack: list[ast.AST] = list(roots)
        while stack:
            self._budget.spend()
            node = stack.pop()
            if isinstance(node, ast.Name):
                if isinstance(node.ctx, ast.Store) and node.id in self._risky:
                    names.add(node.id)
            elif isinstance(node, ast.Global):
                outer.update(node.names)
            elif not isinstance(node, (*Function, ast.ClassDef)):
                stack += children(node)
        return frozenset(names - outer)

    def bind(self, statement: ast.stmt) -> None:
        """Risky names that are the cell's own from here on."""
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.names.add(statement.name)
        elif isinstance(statement, (ast.Assign, ast.For, ast.With)) or (
            isinstance(statement, ast.AnnAssign) and statement.value is not None
        ):
            self.names |= self.stored([statement])
        elif isinstance(statement, ast.Delete):
            self.names -= {target.id for target in statement.targets if isinstance(target, ast.Name)}
