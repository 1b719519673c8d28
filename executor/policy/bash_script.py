"""What stands in a bash script: its statements, redirections and functions, and what its names can stand for."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from executor.policy import words
from executor.policy.budget import Budget
from executor.policy.syntax import Syntax

if TYPE_CHECKING:
    import tree_sitter


@dataclass(slots=True)
class Statement:
    """A pipeline or a command with its redirections: what one part prints, another may read."""

    depth: int
    commands: list[tree_sitter.Node] = field(default_factory=list)
    texts: list[tree_sitter.Node] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Survey:
    """A script's statements, redirections and function definitions."""

    statements: list[Statement]
    redirects: list[tree_sitter.Node]
    functions: list[tree_sitter.Node]


class Bindings:
    """What variables can hold, and which functions there are, over all scripts of a cell.

    Of too many values those are kept that are `risky`.
    """

    def __init__(self, risky: Callable[[str], bool]) -> None:
        self.functions: set[str] = set()
        self._risky = risky
        self._variables: dict[str, words.Values] = {}

    @property
    def variables(self) -> words.Variables:
        """The texts that each variable can hold."""
        return self._variables

    def values(self, syntax: Syntax, node: tree_sitter.Node) -> words.Values:
        """The texts that a word can stand for."""
        return words.values(syntax, node, self._variables)

    def assign(self, syntax: Syntax, node: tree_sitter.Node) -> None:
        """`name=value`, `name+=value`, `name=(values)`."""
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name is None or value is None:
            return
        variable = re.match(r"\w*", syntax.text(name))
        assert variable is not None
        if value.type == "array":
            parts = [self.values(syntax, child) for child in value.named_children[:64]]
            self.learn(variable[0], (" ".join(p[0] for p in parts), *(text for p in parts for text in p)))
            return
        texts = self.values(syntax, value)
        if syntax.source[name.end_byte : name.end_byte + 1] == b"+":
            texts = tuple(old + new for old in self._variables.get(variable[0], ("",)) for new in texts)
        self.learn(variable[0], texts)

    def learn(self, variable: str, texts: Iterable[str]) -> None:
        """The variable can hold these texts, too."""
        known = dict.fromkeys(self._variables.get(variable, ()))
        known.update(dict.fromkeys(text for text in texts if len(text) <= words.MAX_LENGTH))
        # only the first few are tried: names that are refused go first
        ranked = sorted(known, key=lambda text: not self._risky(text))
        self._variables[variable] = tuple(ranked)[: words.MAX_VALUES]

    def learn_positional(self, arguments: list[words.Values]) -> None:
        """`$1`, `$2`, ..., `$@` and `$*` can hold these."""
        for index, texts in enumerate(arguments[:9], 1):
            self.learn(str(index), texts)
        for start in range(min(3, len(arguments))):  # `shift` leaves the later ones
            joined = " ".join(texts[0] for texts in arguments[start:64])
            for name in "@*":
                self.learn(name, (joined,))


def survey(syntax: Syntax, bindings: Bindings, budget: Budget) -> Survey:
    """Walk a script once; `bindings` learn its variables and functions on the way."""
    statements: list[Statement] = []
    redirects: list[tree_sitter.Node] = []
    functions: list[tree_sitter.Node] = []
    current: Statement | None = None
    for depth, node in syntax.walk(budget):
        kind = node.type
        if current is not None and depth <= current.depth:
            current = None
        if kind in ("pipeline", "redirected_statement", "command"):
            if current is None:
                current = Statement(depth)
                statements.append(current)
            if kind == "command":
                current.commands.append(node)
        elif kind in ("heredoc_body", "herestring_redirect"):
            if current is not None:
                current.texts.append(node)
        elif kind == "file_redirect":
            redirects.append(node)
        elif kind == "variable_assignment":
            bindings.assign(syntax, node)
        elif kind == "for_statement":
            variable = node.child_by_field_name("variable")
            if variable is not None:
                for value in node.children_by_field_name("value"):
                    bindings.learn(syntax.text(variable), bindings.values(syntax, value))
        elif kind == "function_definition":
            functions.append(node)
            name = node.child_by_field_name("name")
            if name is not None:
                bindings.functions.add(syntax.text(name))
    if bindings.functions:
        _learn_arguments(syntax, statements, bindings, budget)
    return Survey(statements, redirects, functions)


def _learn_arguments(syntax: Syntax, statements: list[Statement], bindings: Bindings, budget: Budget) -> None:
    """`f rm x` makes `$1` and `$@` of a function `f` known."""
    for statement in statements:
        for node in statement.commands:
            budget.spend()
            name = node.child_by_field_name("name")
            if name is not None and syntax.text(name) in bindings.functions:
                bindings.learn_positional([bindings.values(syntax, w) for w in node.children_by_field_name("argument")])
