"""Syntax trees from tree-sitter, loaded on first use and parsed within a budget."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from time import thread_time
from typing import Literal

import tree_sitter

from executor.policy.budget import PARSE_SECONDS, Budget, TooComplex

Grammar = Literal["javascript", "bash"]

_CHUNK = 65_536
_SURROGATES = re.compile("[\ud800-\udfff]")


def without_surrogates(text: str) -> str:
    """The text with lone surrogates replaced one for one, so that it can be encoded and positions stay."""
    return _SURROGATES.sub("\ufffd", text)


class Syntax:
    """A parsed text: the tree, and the way from its byte positions back to lines and columns in characters."""

    __slots__ = ("_last", "_lines", "_plain", "_tree", "source")

    def __init__(self, text: str, grammar: Grammar, budget: Budget) -> None:
        """Raises TooComplex where the parser does not come to an end in time."""
        self.source = text.encode()
        self._tree = _parse(self.source, grammar, budget)
        self._lines: list[bytes] | None = None
        self._plain = self.source.isascii()
        self._last = (0, 0, 0)

    @property
    def root(self) -> tree_sitter.Node:
        """The root of the tree."""
        return self._tree.root_node

    def text(self, node: tree_sitter.Node) -> str:
        """The source text of a node."""
        return self.source[node.start_byte : node.end_byte].decode(errors="replace")

    def position(self, node: tree_sitter.Node) -> tuple[int, int]:
        """Line and column of a node's beginning, from 1, in characters."""
        row, byte = node.start_point
        if self._plain:
            return row + 1, byte + 1
        if self._lines is None:
            self._lines = self.source.split(b"\n")
        # Goes on from the last position: counting a line of a megabyte anew for each of its words would take minutes
        last_row, start, characters = self._last
        if last_row != row or start > byte:
            start = characters = 0
        characters += len(self._lines[row][start:byte].decode(errors="replace"))
        self._last = (row, byte, characters)
        return row + 1, characters + 1

    def walk(self, budget: Budget) -> Iterator[tuple[int, tree_sitter.Node]]:
        """Every named node with its depth, parents first. Iterative: trees can be a million levels deep."""
        cursor = self._tree.walk()
        depth = 0
        while True:
            budget.spend()
            node = cursor.node
            if node is not None and node.is_named:
                yield depth, node
            if cursor.goto_first_child():
                depth += 1
                continue
            while not cursor.goto_next_sibling():
                if not cursor.goto_parent():
                    return
                depth -= 1


@cache
def _language(grammar: Grammar) -> tree_sitter.Language:
    # Loaded by the first code in that language
    return tree_sitter.Language(import_module(f"tree_sitter_{grammar}").language())


def _parse(source: bytes, grammar: Grammar, budget: Budget) -> tree_sitter.Tree:
    # A parser of its own each time: a parser that was stopped half-way would go on with the old text, and threads may
    # check at the same time. It costs microseconds.
    parser = tree_sitter.Parser(_language(grammar))
    if len(source) < 2_000:
        return parser.parse(source)
    end = thread_time() + min(PARSE_SECONDS, budget.left())
    try:
        return parser.parse(
            lambda offset, _: source[offset : offset + _CHUNK],
            progress_callback=lambda _offset, _error: thread_time() > end,
        )
    except ValueError:  # what the binding raises when the callback stops it
        raise TooComplex from None
