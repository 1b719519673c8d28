"""Reads Python cells with `ast`: imports, names, attributes, calls; IPython's commands go to the reader they belong to.

Not seen, because only running would tell: names put together at run time, files that are run, objects of earlier cells.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from executor.policy import bash, magics
from executor.policy.budget import Budget, TooComplex
from executor.policy.notebook import Cell, NotRun, cell
from executor.policy.python_names import Function, Imports, Own
from executor.policy.python_tree import beginning, children, constant, parse, targets
from executor.policy.rules import Level, Rule, rulebook
from executor.policy.source import Origin
from executor.policy.syntax import without_surrogates

if TYPE_CHECKING:
    from executor.results import Violation

MAX_NESTING = 6

_DUNDER = re.compile(r"__\w+__")
_LOOPBACK = re.compile(r"(?i)^(?:\w+://)?(?:\w+@)?(?:localhost|127\.|\[?::1|0\.0\.0\.0)|^(?:file|data):")
_ADDRESS = re.compile(r"(?i)^(?:https?|ftps?|s3|gs|hf)://")

_GETTERS = frozenset({"getattr", "setattr", "delattr"})
_LOOKUPS = frozenset({"get", "pop", "setdefault"})
_SHELL_CALLS = frozenset(
    {
        *(f"os.{name}" for name in ("system", "popen", "execv", "execve", "execvp", "execvpe", "posix_spawn")),
        *(f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "Popen")),
        *("subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"),
        *("asyncio.create_subprocess_shell", "asyncio.create_subprocess_exec"),
        *(f"asyncio.subprocess.create_subprocess_{kind}" for kind in ("shell", "exec")),
    }
)

_Comprehension = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
_NO_NAMES: frozenset[str] = frozenset()


def read(code: str, level: Level, budget: Budget, origin: Origin | None = None) -> list[Violation]:
    """The violations in a cell. Code that Python or IPython will not run has none. Raises TooComplex."""
    reader = _Reader(level, budget)
    reader.add(without_surrogates(code), origin or Origin(), 0)
    return reader.finish()


@dataclass(frozen=True, slots=True)
class _Book:
    """The Python rules of a level, laid out for looking up."""

    imports: dict[str, Rule]
    attributes: dict[str, Rule]
    names: dict[str, Rule]
    qualified: dict[str, Rule]
    calls: dict[str, Rule]
    dunder: Rule | None
    shell: Rule | None
    network: dict[str, Rule]
    addresses: dict[str, Rule]
    subprocess: tuple[Rule, ...]
    foreign: dict[str, Rule]
    forks: dict[str, Rule]


@cache
def _book(level: Level) -> _Book:
    rules = rulebook(level)
    names, imports, network = (rules.of("python", match) for match in ("name", "import", "network"))
    return _Book(
        imports=rules.named("python", "import"),
        attributes={name: rule for rule in imports for name in rule.attributes},
        names=rules.named("python", "name"),
        qualified={name: rule for rule in names for name in rule.calls},
        calls=rules.named("python", "call"),
        dunder=rules.first("python", "dunder"),
        shell=rules.first("python", "shell-object"),
        network={name: rule for rule in network for name in rule.calls},
        addresses={name: rule for rule in network for name in rule.addresses},
        subprocess=tuple(rules.of("python", "subprocess")),
        foreign=rules.named("python", "foreign-function"),
        forks=rules.named("python", "fork-loop"),
    )


class _Reader:
    def __init__(self, level: Level, budget: Budget) -> None:
        self.level = level
        self.budget = budget
        self.book = _book(level)
        self.found: list[Violation] = []
        self.todo: list[tuple[str, Origin, int]] = []
        self.imports = Imports()
        self.own = Own(self.book.names, budget)
        self.stored: set[str] = set()
        self.handled: set[int] = set()
        self.cell = Cell("", "")
        self.origin = Origin()
        self.depth = 0
        self.visitors: dict[type[ast.AST], Callable[..., None]] = {
            ast.Import: self._import,
            ast.ImportFrom: self._import_from,
            ast.Name: self._name,
            ast.Attribute: self._attribute,
            ast.Call: self._call,
            ast.Subscript: self._subscript,
            ast.MatchClass: self._match_class,
            ast.While: self._while,
            ast.arg: self._arg,
        }

    def add(self, code: str, origin: Origin, depth: int) -> None:
        """Put code on the list."""
        if depth > MAX_NESTING:
            raise TooComplex
        if code.strip():
            self.todo.append((code, origin, depth))

    def finish(self) -> list[Violation]:
        while self.todo:
            code, self.origin, self.depth = self.todo.pop()
            try:
                self.cell = cell(code, self.budget)
            except NotRun:
                continue
            for piece in magics.without_percent(self.cell.python):
                self._piece(piece, self.origin.nested(code, piece.text.strip("\n"), 1, 1))
            tree = parse(self.cell.python, self.budget)
            if tree is not None:
                self._module(tree)
        return self.found

    # -- walking

    def _module(self, tree: ast.Module) -> None:
        for statement in tree.body:
            self._walk(statement)
            self.own.bind(statement)

    def _walk(self, root: ast.AST) -> None:
        """Every node below, parents first and in the order of the source, with the risky names that are local there."""
        stack: list[tuple[ast.AST, frozenset[str]]] = [(root, _NO_NAMES)]
        visitors = self.visitors
        while stack:
            self.budget.spend()
            node, local = stack.pop()
            visit = visitors.get(type(node))
            if visit is not None:
                visit(node, local)
            below = children(node)
            if isinstance(node, Function):
                # defaults, annotations and decorators belong to the scope around
                outside = {id(node.args), *map(id, getattr(node, "decorator_list", ()))}
                inner = local | self.own.of_function(node)
            elif isinstance(node, _Comprehension):
                # so does what the first `for` runs over
                first = node.generators[0]
                below += [first.target, first.iter, *first.ifs]
                below.remove(first)
                outside = {id(first.iter)}
                inner = local | self.own.stored(generator.target for generator in node.generators)
            else:
                stack += [(child, local) for child in reversed(below)]
                continue
            stack += [(child, local if id(child) in outside else inner) for child in reversed(below)]

    def _refuse(self, rule: Rule, subject: str, node: ast.expr | ast.stmt | ast.alias | ast.pattern) -> None:
        self.found.append(rule.violation(subject, *self._at(node)))

    def _at(self, node: ast.expr | ast.stmt | ast.alias | ast.pattern) -> tuple[int, int]:
        return self.origin.at(*self.cell.at(node.lineno, node.col_offset))

    # -- imports, names, attributes

    def _import(self, node: ast.Import, _: frozenset[str]) -> None:
        for alias in node.names:
            top = alias.name.partition(".")[0]
            rule = self.book.imports.get(top)
            if rule is not None:
                self._refuse(rule, alias.name, alias)
            self.imports.add(alias.name, alias=alias.asname)

    def _import_from(self, node: ast.ImportFrom, _: frozenset[str]) -> None:
        module = node.module or ""
        top = module.partition(".")[0]
        rule = self.book.imports.get(top) if not node.level else None
        if rule is not None:
            self._refuse(rule, module, node)
        for alias in node.names:
            self.imports.add(module, name=alias.name, alias=alias.asname)
            inner = self.book.attributes.get(alias.name.lstrip("_")) or self.book.qualified.get(
                f"{module}.{alias.name}"
            )
            if inner is not None and rule is None:
                self._refuse(inner, alias.name, alias)
            self._dunder(alias.name, alias)

    def _name(self, node: ast.Name, local: frozenset[str]) -> None:
        name = node.id
        if isinstance(node.ctx, ast.Store):
            self.stored.add(name)
        rule = self.book.names.get(name)
        if rule is not None:
            if isinstance(node.ctx, ast.Load) and name not in local and name not in self.own.names:
                self._refuse(rule, name, node)
            return
        if self.book.shell is not None and name in self.book.shell.names and id(node) not in self.handled:
            self._refuse(self.book.shell, name, node)
            return
        self._dunder(name, node)

    def _arg(self, node: ast.arg, _: frozenset[str]) -> None:
        self.stored.add(node.arg)

    def _attribute(self, node: ast.Attribute, _: frozenset[str]) -> None:
        name = node.attr
        if isinstance(node.value, ast.Name):
            root = node.value.id
            rule = self.book.attributes.get(root)
            if rule is not None and root not in self.imports and root not in self.stored:
                self._refuse(rule, f"{root}.{name}", node)
        rule = self.book.attributes.get(name.lstrip("_"))
        if rule is not None and self.imports.has_root(node):
            self._refuse(rule, name, node)
        if name in self.book.foreign:
            rule = self.book.foreign[name]
            if rule.needs in self.imports.modules:
                self._refuse(rule, name, node)
        if self.book.qualified:
            rule = self.book.qualified.get(self.imports.full_name(node))
            if rule is not None:
                self._refuse(rule, f"{name}", node)
        self._dunder(name, node, attribute=True)

    def _dunder(self, name: str, node: ast.expr | ast.alias | ast.pattern, *, attribute: bool = False) -> None:
        rule = self.book.dunder
        if rule is None:
            return
        if (_DUNDER.fullmatch(name) and name not in rule.allow) or (attribute and name in rule.names):
            self._refuse(rule, name, node)

    def _match_class(self, node: ast.MatchClass, _: frozenset[str]) -> None:
        for name in node.kwd_attrs:
            self._dunder(name, node, attribute=True)

    def _subscript(self, node: ast.Subscript, _: frozenset[str]) -> None:
        text = constant(node.slice)
        if text is not None:
            self._by_string(text, node)

    def _by_string(self, text: str, node: ast.expr) -> None:
        """A name that is given as a constant string."""
        rule = self.book.names.get(text) if text.startswith("__") else None
        if rule is not None:
            self._refuse(rule, text, node)
        else:
            self._dunder(text, node, attribute=True)

    # -- calls

    def _call(self, node: ast.Call, _: frozenset[str]) -> None:
        func = node.func
        if isinstance(func, ast.Name):
            rule = self.book.calls.get(func.id)
            if rule is not None and func.id not in self.stored and func.id not in self.own.names:
                self._refuse(rule, func.id, node)
            if func.id in _GETTERS and len(node.args) > 1:
                self._get(node, node.args[1])
        elif isinstance(func, ast.Attribute):
            if func.attr in _LOOKUPS and node.args:
                text = constant(node.args[0])
                if text is not None:
                    self._by_string(text, node)
            self._shell_object(node, func)
        name = func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""
        if name in ("attrgetter", "methodcaller"):
            for argument in node.args:
                for part in (constant(argument) or "").split("."):
                    self._by_string(part, argument)
        full = self.imports.full_name(func)
        if full:
            self._qualified(node, full)

    def _get(self, node: ast.Call, name: ast.expr) -> None:
        text = constant(name)
        if text is None:
            return
        rule = self.book.names.get(text)
        if rule is None and self.imports.has_root(node.args[0]):
            rule = self.book.attributes.get(text.lstrip("_"))
        if rule is not None:
            self._refuse(rule, text, name)
        else:
            self._dunder(text, name, attribute=True)

    def _qualified(self, node: ast.Call, full: str) -> None:
        rule = self.book.network.get(full)
        if rule is not None and not any(_LOOPBACK.match(text) for text in map(beginning, targets(node))):
            self._refuse(rule, full, node)
        rule = self.book.addresses.get(full)
        if rule is not None and node.args:
            text = beginning(node.args[0])
            if _ADDRESS.match(text) and not _LOOPBACK.match(text):
                self._refuse(rule, text, node.args[0])
        if full in _SHELL_CALLS:
            self._shell_call(node, full)

    def _shell_call(self, node: ast.Call, full: str) -> None:
        arguments = node.args or [k.value for k in node.keywords if k.arg in ("args", "cmd", "command")]
        if not arguments:
            return
        first = arguments[0]
        words: list[str] | None = None
        if isinstance(first, (ast.List, ast.Tuple)):
            words = [constant(item) or "\0" for item in first.elts]
        elif full.endswith("_exec"):
            words = [constant(item) or "\0" for item in arguments]
        text = " ".join(words) if words is not None else constant(first)
        if text is None:
            return
        for rule in self.book.subprocess:
            if rule.pattern is not None and rule.pattern.search(text):
                self._refuse(rule, text.replace("\0", "python"), first)
                return
        if words is not None:
            place = Origin(*self._at(first), exact=False)
            self.found += bash.read_command(words, self.level, self.budget, place)
        else:
            self.found += bash.read(text, self.level, self.budget, self._origin(text, first))

    # -- IPython

    def _shell_object(self, node: ast.Call, func: ast.Attribute) -> None:
        """`get_ipython().system("…")` and its like, which is what `!…` and `%…` become."""
        if not (isinstance(func.value, ast.Call) and isinstance(func.value.func, ast.Name)):
            return
        if func.value.func.id != "get_ipython":
            return
        texts = [constant(argument) for argument in node.args]
        known = [text for text in texts if text is not None]
        if len(known) != len(texts) or node.keywords or func.value.args:
            return  # the name itself is refused where the level does so
        method = func.attr
        if method == "show_usage":
            self.handled.add(id(func.value.func))
            return
        if method == "magic" and len(known) == 1:
            name, _, line = known[0].partition(" ")
            known = [name, line]
        refused = self.book.shell.magics if self.book.shell is not None else frozenset()
        if method in magics.RUN_MAGIC and not refused.isdisjoint(known[:1]):
            return
        pieces = magics.called(method, known)
        if pieces is None:
            return
        self.handled.add(id(func.value.func))
        for piece in pieces:
            self._piece(piece, self._origin(piece.text.strip("\n"), node))

    def _piece(self, piece: magics.Piece, origin: Origin) -> None:
        text = piece.text.strip("\n")
        if piece.kind == "bash":
            self.found += bash.read(text, self.level, self.budget, origin)
        else:
            self.add(text, origin, self.depth + 1)

    def _origin(self, text: str, node: ast.expr) -> Origin:
        """Where a constant text of a node stands."""
        line, column = self.cell.at(node.lineno, node.col_offset)
        return self.origin.nested(self.cell.source, text, line, column)

    # -- shapes

    def _while(self, node: ast.While, _: frozenset[str]) -> None:
        if not (isinstance(node.test, ast.Constant) and node.test.value):
            return
        for statement in node.body:
            value = statement.value if isinstance(statement, (ast.Expr, ast.Assign)) else None
            if isinstance(value, ast.Call):
                full = self.imports.full_name(value.func)
                rule = self.book.forks.get(full)
                if rule is not None:
                    self._refuse(rule, full, value)
