"""Trees of Python code: parsed within a budget, and the constant texts in them."""

from __future__ import annotations

import ast
import re

from executor.policy.budget import Budget, TooComplex
from executor.policy.notebook import silence

MAX_STATEMENTS = 100_000
"""Lines and semicolons of one cell: a statement costs the parser up to 10 µs, and nothing can stop it on the way."""

MAX_FSTRING_WORK = 5_000_000_000
"""Braces times characters of a cell with f-strings: Python 3.11 parses each `{…}` of one in time that grows with the
length of the string (82 s for a megabyte of `{a}`)."""

_FILE = "<policy>"
_FSTRING = re.compile(r"\b[rR]?[fF][rR]?['\"]")


def parse(code: str, budget: Budget) -> ast.Module | None:
    """The tree, or None where Python will not compile the code either. Raises TooComplex."""
    budget.look()
    if code.count("\n") + code.count("\r") + code.count(";") > MAX_STATEMENTS:
        raise TooComplex
    if code.count("{") * len(code) > MAX_FSTRING_WORK and _FSTRING.search(code):
        raise TooComplex
    try:
        silence(_FILE)  # `"\d"` warns
        return ast.parse(code, filename=_FILE)
    except (SyntaxError, ValueError):
        return None
    except (RecursionError, MemoryError):
        raise TooComplex from None


def children(node: ast.AST) -> list[ast.AST]:
    """The nodes right below, constants left out."""
    found: list[ast.AST] = []
    for field in node._fields:
        value = getattr(node, field, None)
        if isinstance(value, list):
            found += [item for item in value if isinstance(item, ast.AST) and type(item) is not ast.Constant]
        elif isinstance(value, ast.AST) and type(value) is not ast.Constant and not isinstance(value, ast.expr_context):
            found.append(value)
    return found


def constant(node: ast.expr, depth: int = 0) -> str | None:
    """The string that an expression of constants gives, else None."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if depth > 20:
        return None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left = constant(node.left, depth + 1)
        right = constant(node.right, depth + 1) if left is not None else None
        return left + right if left is not None and right is not None else None
    if isinstance(node, ast.JoinedStr):
        parts = [constant(value, depth + 1) for value in node.values]
        return "".join(part for part in parts if part is not None) if None not in parts else None
    return None


def beginning(node: ast.expr) -> str:
    """The constant beginning of a string or of a pair of host and port; empty where there is none."""
    if isinstance(node, (ast.Tuple, ast.List)) and node.elts:
        return beginning(node.elts[0]) if not isinstance(node.elts[0], (ast.Tuple, ast.List)) else ""
    if isinstance(node, ast.JoinedStr) and node.values:
        return constant(node.values[0]) or ""
    return constant(node) or ""


def targets(node: ast.Call) -> list[ast.expr]:
    """The arguments of a call that may name whom it connects to."""
    return [*node.args[:2], *(k.value for k in node.keywords if k.arg in ("url", "host", "address"))]
