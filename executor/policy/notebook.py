"""Turns a notebook cell with `%magic`, `!command` and `?` into Python as IPython will, keeping track of lines."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from executor.policy.budget import Budget, TooComplex

# Whatever IPython could change begins like this; a cell without any of it is Python as it stands. Too wide is fine:
# then IPython's own code decides. Lines end where str.splitlines() says, since that is what IPython goes by.
_LINE = r"(?:^|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029])"
_BLANK = r"[^\S\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]*"
_SPECIAL = re.compile(
    rf"{_LINE}[ \t\x0c]*[%!?,;/]|=\s*[%!]|\?\s*(?:[\n\r#;]|$)"
    rf"|{_LINE}{_BLANK}>>>|{_LINE}{_BLANK}\.{{3,}}:|{_LINE}(?:\[\w+\])? ?In \[\d+\]:"
)
_TOKENS = re.compile(rf"{_LINE}[ \t\x0c]*[%!?,;/]|=\s*[%!]|\?\s*(?:[\n\r#;]|$)")
_INDENTED = re.compile(r"\s*[ \t\x0c]\S")

MAX_TOKENIZED = 400_000
"""Characters of a cell with IPython syntax: the pure-Python tokenizer, which runs once for each piece of it, takes
about 3 µs a character."""

_MAX_PIECES = 500  # IPython's own limit, above which it does not run the cell


class NotRun(Exception):
    """IPython itself will refuse the cell, so there is nothing to check."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell as IPython will compile it. `lines` gives for each line of `python` its line in `source`, both from 0."""

    source: str
    python: str
    lines: tuple[int, ...] | None = None

    def at(self, line: int, byte: int) -> tuple[int, int]:
        """Line and column of the source, from 1, for a line (from 1) and a UTF-8 offset (from 0) of an AST node."""
        after = _line(self.python, line - 1)
        column = len(after.encode(errors="replace")[:byte].decode(errors="replace"))
        if self.lines is None:
            return line, column + 1
        row = self.lines[min(line - 1, len(self.lines) - 1)] if self.lines else 0
        before = _line(self.source, row)
        if before == after:
            return row + 1, column + 1
        if before.endswith(after):  # a prompt or an indentation was taken off
            return row + 1, len(before) - len(after) + column + 1
        return row + 1, min(column, len(before) - len(before.lstrip())) + 1


def cell(source: str, budget: Budget) -> Cell:
    """The cell as Python. Raises NotRun where IPython refuses it, and TooComplex."""
    if not _SPECIAL.search(source) and not _INDENTED.match(source):
        return Cell(source, source)
    return _transformed(source, budget)


def silence(module: str) -> None:
    """Keep warnings about a cell, which are for the session to see, out of the server's log.

    Not `warnings.catch_warnings`: checks run in threads, and one would restore what another had set. Setting the same
    filter again changes nothing.
    """
    warnings.filterwarnings("ignore", module=module)


def _transformed(source: str, budget: Budget) -> Cell:
    silence(r"IPython\.core\.inputtransformer2")  # about lines that end in unusual ways
    transformer: Any = _transformer()  # IPython has no types here
    before = (source if source.endswith("\n") else source + "\n").splitlines(keepends=True)
    rows = _rows(before)
    lines = before
    for change in (*transformer.cleanup_transforms, *transformer.line_transforms):
        after = change(lines)
        if after != lines:
            rows = _follow(lines, after, rows)
            lines = after
        budget.look()
    for _ in range(_MAX_PIECES):
        text = "".join(lines)
        if not _TOKENS.search(text):
            break
        if len(text) > MAX_TOKENIZED:
            raise TooComplex
        budget.look()
        try:
            changed, after = transformer.do_one_token_transform(lines)
        except (SyntaxError, AssertionError, IndexError, ValueError, RecursionError):
            raise NotRun from None  # IPython shows the same error instead of running the cell
        if not changed:
            break
        rows = _follow(lines, after, rows)
        lines = after
    else:
        raise NotRun
    # From IPython's lines to Python's, which end at \n and \r only
    starts: list[int] = []
    fresh = True
    for line, row in zip(lines, rows, strict=True):
        if fresh:
            starts.append(row)
        fresh = line.endswith(("\n", "\r"))
    return Cell(source, "".join(lines), tuple(starts))


@cache
def _transformer() -> object:
    # Loaded by the first cell that needs it: 0.15 s
    return import_module("IPython.core.inputtransformer2").TransformerManager()


def _rows(lines: list[str]) -> list[int]:
    """The number of Python's line, from 0, for each of IPython's lines."""
    rows, row = [], 0
    for line in lines:
        rows.append(row)
        row += line.endswith(("\n", "\r"))
    return rows


def _follow(old: list[str], new: list[str], rows: list[int]) -> list[int]:
    """The rows of the new lines: what is alike at both ends keeps its row, the middle belongs to where it begins."""
    if len(old) == len(new):
        return rows
    start = 0
    while start < min(len(old), len(new)) and old[start] == new[start]:
        start += 1
    end = 0
    while end < min(len(old), len(new)) - start and old[-1 - end] == new[-1 - end]:
        end += 1
    middle = [rows[min(start, len(rows) - 1)]] * (len(new) - start - end)
    return rows[:start] + middle + (rows[len(rows) - end :] if end else [])


def _line(text: str, index: int) -> str:
    lines = re.split(r"\r\n|\n|\r", text) if len(text) < 100_000 else text.split("\n")
    return lines[index] if 0 <= index < len(lines) else ""
