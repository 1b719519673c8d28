"""Reads bash: which commands a script runs, in every form that its text gives away.

Not seen, because only running would tell: names put together from input or files, links and copies of a program under
another name, script files, and programs of other languages (`python -c`, `awk 'BEGIN{system(…)}'`, `perl -e`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING

from executor.policy import words
from executor.policy.bash_script import Bindings, Statement, survey
from executor.policy.budget import Budget, TooComplex
from executor.policy.rules import Level, Rule, rulebook
from executor.policy.source import Origin
from executor.policy.syntax import Syntax, without_surrogates
from executor.policy.wrappers import SHELLS, WRAPPERS, base_name, commands, shell_script

if TYPE_CHECKING:
    import tree_sitter

    from executor.results import Violation

MAX_NESTING = 8
"""Scripts within scripts within scripts (`bash -c "bash -c …"`); deeper ones are too complex."""

_TEXT_RUNNERS = frozenset({"eval", "alias", "trap"})
_READERS = frozenset({"source", "."})
_PRINTERS = frozenset({"echo", "printf"})
_PLAIN = re.compile(r"[\w./:@%+,-]+")
_JOINED_WORD = re.compile(r"(?<=[^\s\\])\\\n(?=\S)")
_BRACED = re.compile(r"(?:^|[\n;|&(])[ \t]*([^\s;|&(){}#]*\{[^\s{},]*(?:,[^\s{},]*)+\}[^\s;|&()]*)")


def read(text: str, level: Level, budget: Budget, origin: Origin | None = None) -> list[Violation]:
    """The violations in a script, at positions of the cell that `origin` places it in. Raises TooComplex."""
    reader = _Reader(level, budget)
    reader.add(text, origin or Origin())
    return reader.finish()


def read_command(argv: Sequence[str], level: Level, budget: Budget, origin: Origin) -> list[Violation]:
    """The violations of one command given as words (`subprocess.run([…])`). Raises TooComplex."""
    reader = _Reader(level, budget)
    reader.run(argv, origin)
    return reader.finish()


@dataclass(frozen=True, slots=True)
class _Book:
    """The bash rules of a level, laid out for looking up."""

    exact: dict[str, Rule]
    globs: tuple[tuple[str, Rule], ...]
    arguments: dict[str, tuple[Rule, ...]]
    redirects: tuple[Rule, ...]
    bomb: Rule | None
    # names in command position, for text that the grammar could not read
    rough: re.Pattern[str] | None
    interesting: frozenset[str]


@cache
def _book(level: Level) -> _Book:
    rules = rulebook(level)
    named = rules.named("bash", "command")
    exact = {name: rule for name, rule in named.items() if "*" not in name}
    arguments: dict[str, tuple[Rule, ...]] = {}
    for rule in rules.of("bash", "arguments"):
        for name in rule.names:
            arguments[name] = (*arguments.get(name, ()), rule)
    rough = (
        re.compile(
            r"(?:^|[\n;|&(){}`!]|\b(?:then|do|else|elif|if|while|until|time|exec|command|xargs|env)[ \t])[ \t]*"
            r"(?:\w{1,64}=\S{0,200}[ \t]{1,8}){0,8}[\\'\"]{0,8}(?:[\w.-]{0,99}/){0,16}("
            + "|".join(map(re.escape, sorted(exact)))
            + r")['\"]*(?=[\s;|&)`]|$)"
        )
        if exact
        else None
    )
    interesting = frozenset(exact) | frozenset(arguments) | WRAPPERS.keys() | SHELLS | _TEXT_RUNNERS | _READERS
    return _Book(
        exact=exact,
        globs=tuple((name, rule) for name, rule in named.items() if "*" in name),
        arguments=arguments,
        redirects=tuple(rules.of("bash", "redirect")),
        bomb=rules.first("bash", "fork-bomb"),
        rough=rough,
        interesting=interesting | {"find", "fd", "fdfind", "set"},
    )


class _Reader:
    def __init__(self, level: Level, budget: Budget) -> None:
        self.budget = budget
        self.book = _book(level)
        self.found: list[Violation] = []
        self.todo: list[tuple[str, Origin, int]] = []
        self.seen: set[str] = set()
        self.bindings = Bindings(lambda text: any(base_name(word) in self.book.exact for word in text.split()[:4]))
        self.depth = 0

    def add(self, text: str, origin: Origin) -> None:
        """Put a script on the list; one that was read already is left out."""
        if self.depth > MAX_NESTING:
            raise TooComplex
        if text.strip() and text not in self.seen:
            self.seen.add(text)
            self.todo.append((text, origin, self.depth))

    def finish(self) -> list[Violation]:
        while self.todo:
            text, origin, depth = self.todo.pop()
            self.depth = depth + 1
            # bash drops NUL bytes; the grammar's scanner does not come back from a long run of them
            self._script(without_surrogates(text).replace("\0", ""), origin)
        return self.found

    # -- one script

    def _script(self, text: str, origin: Origin) -> None:
        # `r\<newline>m` is one word to bash and two to the grammar
        if _JOINED_WORD.search(text):
            self.add(text.replace("\\\n", ""), Origin(*origin.at(1, 1), exact=False))
        syntax = Syntax(text, "bash", self.budget)
        found = survey(syntax, self.bindings, self.budget)
        for statement in found.statements:
            self.budget.spend()
            self._statement(syntax, statement, text, origin)
        for node in found.redirects:
            self.budget.spend()
            self._redirect(syntax, node, origin)
        for node in found.functions:
            self.budget.spend()
            self._fork_bomb(syntax, node, origin)
        if syntax.root.has_error:
            self._rough(text, origin)
        for match in _BRACED.finditer(text):
            self.budget.spend()
            options = words.braces(match[1])
            for first in options[:1]:
                self._name(first, [first, *options[1:]], origin.at(*_place(text, match.start(1))))

    # -- what is run

    def _statement(self, syntax: Syntax, statement: Statement, text: str, origin: Origin) -> None:
        reads = False
        for node in statement.commands:
            name = node.child_by_field_name("name")
            if name is None:
                continue
            plain = syntax.text(name)
            if _PLAIN.fullmatch(plain) and not self._interesting(base_name(plain)):
                continue
            reads |= self._command(syntax, node, name, text, origin)
        if not reads:
            return
        for node in statement.texts:
            content = syntax.text(node)
            if node.type == "herestring_redirect":
                content = words.literal(syntax, node.named_children[-1]) if node.named_children else ""
            self.add(content, origin.nested(text, content, *syntax.position(node)))
        for node in statement.commands:
            name = node.child_by_field_name("name")
            self.budget.spend()
            if name is not None and syntax.text(name) in _PRINTERS:
                pieces = [self._argument(syntax, w) for w in node.children_by_field_name("argument")]
                for piece in (*(p[0] for p in pieces), " ".join(p[0] for p in pieces)):
                    script = re.sub(r"^(-[neE]+ )+", "", words.ansi_c(piece))
                    self.add(script, origin.nested(text, script, *syntax.position(node)))

    def _command(
        self, syntax: Syntax, node: tree_sitter.Node, name: tree_sitter.Node, text: str, origin: Origin
    ) -> bool:
        """Look at one command; True where it reads a script from standard input."""
        arguments = node.children_by_field_name("argument")
        columns = [(name, self.bindings.values(syntax, name))]
        for word in arguments:
            self.budget.spend()
            columns.append((word, self._argument(syntax, word)))
        reads = False
        for index in range(max(len(options) for _, options in columns)):
            self.budget.spend()
            argv: list[str] = []
            where: dict[str, tree_sitter.Node] = {}
            for word, options in columns:
                value = options[min(index, len(options) - 1)]
                pieces = value.split() if word is name or (" " in value and _expands(word)) else [value]
                for piece in pieces:
                    argv.append(piece)
                    where.setdefault(piece, word)
            if not argv:
                continue

            def at(piece: str, where: dict[str, tree_sitter.Node] = where) -> Origin:
                return self._origin(syntax, where.get(piece, name), piece, text, origin)

            reads |= self._argv(argv, at)
        if not _PLAIN.fullmatch(syntax.text(name)):
            for pattern in words.patterns(syntax, name, self.bindings.variables):
                self._pattern(pattern, origin.at(*syntax.position(name)))
        return reads

    def _origin(self, syntax: Syntax, node: tree_sitter.Node, piece: str, text: str, origin: Origin) -> Origin:
        """Where a word stands; the text of a quoted one letter for letter where that is so."""
        line, column = syntax.position(node)
        if node.type in ("string", "raw_string") and len(piece) > 1:
            return origin.nested(text, piece, line, column)
        return Origin(*origin.at(line, column), exact=False)

    def run(self, argv: Sequence[str], origin: Origin) -> None:
        """Look at one command of which only the words are known."""
        if argv:
            self._argv(list(argv), lambda _: origin)

    def _argv(self, argv: list[str], at: _At) -> bool:
        argv = [word.replace(words.UNKNOWN, "") if i == 0 else word for i, word in enumerate(argv)]
        reads = False
        for command in commands(argv):
            self.budget.spend()
            name = command[0]
            if " " in name.strip():  # watch 'rm x', parallel 'rm {}'
                self.add(" ".join(command), at(name))
                continue
            place = at(name)
            self._name(name, command, place.at(1, 1))
            script, standard_input = shell_script(command)
            reads |= standard_input
            if script is not None:
                self.add(script, at(script))
            base = base_name(name)
            if base == "eval":
                whole = " ".join(command[1:])
                self.add(whole, at(whole) if len(command) == 2 else place)
            elif base == "alias":
                for word in command[1:]:
                    self.add(word.partition("=")[2], at(word))
            elif base == "trap" and len(command) > 2:
                script = next((word for word in command[1:] if not word.startswith("-")), "")
                self.add(script, at(script))
            elif base == "flock" and "-c" in command:
                self.add(" ".join(command[command.index("-c") + 1 :]), place)
            elif base == "set" and "--" in command:
                self.bindings.learn_positional([(word,) for word in command[command.index("--") + 1 :]])
            elif base in _READERS:
                reads = True
        return reads

    def _name(self, name: str, command: Sequence[str], place: tuple[int, int]) -> None:
        base = base_name(name)
        # the rule that knows the arguments has the better sentence
        rule = next((r for r in self.book.arguments.get(base, ()) if _all_match(r, command[1:])), None)
        rule = rule or self.book.exact.get(base) or self._globs(base)
        if rule is not None:
            self.found.append(rule.violation(base, *place))

    def _interesting(self, name: str) -> bool:
        return name in self.book.interesting or name.startswith("ld-") or self._globs(name) is not None

    def _globs(self, name: str) -> Rule | None:
        base = base_name(name)
        return next((rule for pattern, rule in self.book.globs if fnmatchcase(base, pattern)), None)

    def _pattern(self, pattern: str, place: tuple[int, int]) -> None:
        """`/bin/r?` runs the first file that matches."""
        base = base_name(pattern.replace(words.UNKNOWN, ""))
        if not any(c in base for c in "*?[") or len(base) > 64 or base.count("*") > 4:
            return
        for name, rule in self.book.exact.items():
            if fnmatchcase(name, base):
                self.found.append(rule.violation(base, *place))
                return

    def _argument(self, syntax: Syntax, node: tree_sitter.Node) -> words.Values:
        if node.end_byte - node.start_byte > words.MAX_LENGTH:
            return (words.literal(syntax, node),)
        return self.bindings.values(syntax, node)

    # -- shapes

    def _redirect(self, syntax: Syntax, node: tree_sitter.Node, origin: Origin) -> None:
        target = node.child_by_field_name("destination")
        if target is None:
            return
        for rule in self.book.redirects:
            for text in self.bindings.values(syntax, target):
                if rule.targets is not None and rule.targets.search(text):
                    self.found.append(
                        rule.violation(text.replace(words.UNKNOWN, "…"), *origin.at(*syntax.position(target)))
                    )
                    return

    def _fork_bomb(self, syntax: Syntax, node: tree_sitter.Node, origin: Origin) -> None:
        """A function whose body starts it twice, unconditionally and not one after the other."""
        name, body = node.child_by_field_name("name"), node.child_by_field_name("body")
        if (
            self.book.bomb is None
            or name is None
            or body is None
            or body.type not in ("compound_statement", "subshell")
        ):
            return
        calls, aside = 0, False
        for child in body.children[:64]:
            aside |= child.type in ("&", "pipeline")
            for command in child.named_children if child.type == "pipeline" else (child,):
                own = command.child_by_field_name("name") if command.type == "command" else None
                calls += own is not None and syntax.text(own) == syntax.text(name)
        if calls >= 2 and aside:
            self.found.append(self.book.bomb.violation(syntax.text(name), *origin.at(*syntax.position(name))))

    def _rough(self, text: str, origin: Origin) -> None:
        """Names in command position by pattern, where the grammar gave up: bash may still read what it could not."""
        if self.book.rough is None:
            return
        known = {(v.rule, v.line) for v in self.found}
        for match in self.book.rough.finditer(text):
            self.budget.spend()
            rule = self.book.exact[match[1]]
            place = origin.at(*_place(text, match.start(1)))
            if (rule.id, place[0]) not in known:
                self.found.append(rule.violation(match[1], *place))
            if len(self.found) > 100:
                return


if TYPE_CHECKING:
    from collections.abc import Callable

    _At = Callable[[str], Origin]


def _expands(node: tree_sitter.Node) -> bool:
    """Whether bash splits the word at white space after putting values in."""
    return node.type in ("simple_expansion", "expansion", "command_substitution")


def _all_match(rule: Rule, arguments: Sequence[str]) -> bool:
    return all(any(pattern.search(word) for word in arguments) for pattern in rule.arguments)


def _place(text: str, index: int) -> tuple[int, int]:
    line = text.count("\n", 0, index)
    return line + 1, index - text.rfind("\n", 0, index)
