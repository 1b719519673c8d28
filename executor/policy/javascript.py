"""Reads JavaScript with tree-sitter: modules, code made at run time, the parts of `process` that reach outside.

Not seen, because only running would tell: names put together at run time, files that are loaded, objects of earlier
cells.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from executor.policy import bash
from executor.policy.budget import Budget
from executor.policy.javascript_tree import JavaScript, arguments_of, inside
from executor.policy.rules import Level, Rule, rulebook
from executor.policy.source import Origin
from executor.policy.syntax import without_surrogates

if TYPE_CHECKING:
    import tree_sitter

    from executor.results import Violation

_GLOBAL = frozenset({"globalThis", "global", "self", "window"})
_FUNCTIONS = frozenset(
    {
        "function_expression",
        "arrow_function",
        "generator_function",
        "function_declaration",
        "class",
        "method_definition",
    }
)
_LOOKED_AT = frozenset(
    {
        "identifier",
        "shorthand_property_identifier",
        "call_expression",
        "new_expression",
        "member_expression",
        "subscript_expression",
        "binary_expression",
        "unary_expression",
        "import_statement",
        "export_statement",
        "variable_declarator",
        "assignment_expression",
    }
)
_LOOPBACK = re.compile(r"(?i)^(?:\w+://)?(?:localhost|127\.|\[?::1|0\.0\.0\.0)|^(?:file|data|blob):")
_SHELL_CALLS = frozenset({"exec", "execSync"})
_PROGRAM_CALLS = frozenset({"spawn", "spawnSync", "execFile", "execFileSync"})


def read(code: str, level: Level, budget: Budget) -> list[Violation]:
    """The violations in a cell. Raises TooComplex."""
    return _Reader(without_surrogates(code), level, budget).finish()


@dataclass(frozen=True, slots=True)
class _Book:
    """The JavaScript rules of a level, laid out for looking up."""

    modules: dict[str, Rule]
    data: Rule | None
    dynamic_module: Rule | None
    code: dict[str, Rule]
    process: dict[str, Rule]
    globals: dict[str, Rule]
    calls: dict[str, Rule]
    subprocess: tuple[Rule, ...]


@cache
def _book(level: Level) -> _Book:
    rules = rulebook(level)
    network = rules.of("javascript", "network")
    return _Book(
        modules=rules.named("javascript", "module"),
        data=rules.first("javascript", "dynamic-code"),
        dynamic_module=rules.first("javascript", "dynamic-module"),
        code=rules.named("javascript", "dynamic-code"),
        process=rules.named("javascript", "process"),
        globals={name: rule for rule in network for name in rule.globals},
        calls={name: rule for rule in network for name in rule.calls},
        subprocess=tuple(rules.of("javascript", "subprocess")),
    )


class _Reader:
    def __init__(self, code: str, level: Level, budget: Budget) -> None:
        self.level = level
        self.budget = budget
        self.book = _book(level)
        self.syntax = JavaScript(code, budget)
        self.code = code
        self.found: list[Violation] = []
        self.handled: set[int] = set()
        self.declared: set[str] = set()
        self.stands_for: dict[str, str] = {}
        """Names of this cell that stand for `globalThis`, `process`, a module or a function of one (`http.get`)."""

    def finish(self) -> list[Violation]:
        nodes: list[tree_sitter.Node] = []
        for _, node in self.syntax.walk(self.budget):
            kind = node.type
            if kind in _LOOKED_AT:
                nodes.append(node)
            if kind in ("variable_declarator", "function_declaration", "class_declaration"):
                name = node.child_by_field_name("name")
                if name is not None and name.type == "identifier":
                    self.declared.add(self.syntax.name(name))
            elif kind == "formal_parameters":
                self.declared.update(self.syntax.name(p) for p in node.named_children if p.type == "identifier")
        for node in nodes:
            self.budget.spend()
            self._look(node)
        return self.found

    def _look(self, node: tree_sitter.Node) -> None:
        match node.type:
            case "identifier" | "shorthand_property_identifier":
                self._identifier(node)
            case "call_expression" | "new_expression":
                self._call(node)
            case "member_expression" | "subscript_expression":
                self._member(node)
            case "binary_expression":
                self._instanceof(node)
            case "unary_expression":
                if node.children and node.children[0].type == "typeof" and len(node.children) > 1:
                    self.handled.add(node.children[1].id)
            case "import_statement" | "export_statement":
                self._import(node)
            case "variable_declarator":
                self._assigned(node.child_by_field_name("name"), node.child_by_field_name("value"))
            case "assignment_expression":
                self._assigned(node.child_by_field_name("left"), node.child_by_field_name("right"))

    def _refuse(self, rule: Rule | None, subject: str, node: tree_sitter.Node) -> None:
        if rule is not None:
            self.found.append(rule.violation(subject, *self.syntax.position(node)))

    # -- names

    def _identifier(self, node: tree_sitter.Node) -> None:
        if node.id in self.handled or not (4 <= node.end_byte - node.start_byte <= 90):
            return
        name = self.syntax.name(node)
        if name in self.book.code:
            self._refuse(self.book.code[name], name, node)
        elif name == "require":
            self._refuse(self.book.dynamic_module, name, node)

    def _instanceof(self, node: tree_sitter.Node) -> None:
        """`x instanceof Function` and `x === Function` make nothing."""
        operator = node.child_by_field_name("operator")
        if operator is not None and operator.type in ("instanceof", "===", "!==", "==", "!="):
            for side in ("left", "right"):
                child = node.child_by_field_name(side)
                if child is not None and child.type == "identifier" and self.syntax.name(child) == "Function":
                    self.handled.add(child.id)

    def _member(self, node: tree_sitter.Node) -> None:
        target, name = self.syntax.member(node)
        if target is None or name is None:
            return
        if target.type == "identifier":
            root = self.syntax.name(target)
            if (root == "Function" and name in ("prototype", "name", "length")) or (
                root == "require" and name in ("resolve", "cache", "extensions")
            ):
                self.handled.add(target.id)
        meaning = self._meaning(target)
        if meaning == "process" and name in self.book.process:
            self._refuse(self.book.process[name], f"process.{name}", node)
        elif meaning == "globalThis" and name in self.book.code:
            self._refuse(self.book.code[name], name, node)
        elif meaning in ("globalThis", "require", "module") and name == "require":
            self._refuse(self.book.dynamic_module, f"{meaning}.require", node)
        elif meaning == "require" and name == "main":
            self.handled.add(inside(target).id)
        elif name == "constructor":
            inner = inside(target)
            twice = (
                inner.type in ("member_expression", "subscript_expression")
                and self.syntax.member(inner)[1] == "constructor"
            )
            if twice or inner.type in _FUNCTIONS:
                self._refuse(self.book.code.get("Function"), "constructor", node)

    def _meaning(self, node: tree_sitter.Node, depth: int = 0) -> str:
        """What an expression stands for: `globalThis`, `process`, `require`, a module, `http.get`; or nothing."""
        node = inside(node)
        if node.type == "identifier":
            name = self.syntax.name(node)
            if name in _GLOBAL:
                return "globalThis"
            if name in self.stands_for:
                return self.stands_for[name]
            return name if name in ("process", "require", "module") else ""
        if depth > 8:
            return ""
        if node.type in ("member_expression", "subscript_expression"):
            target, name_or_none = self.syntax.member(node)
            if target is None or name_or_none is None:
                return ""
            base = self._meaning(target, depth + 1)
            if base == "globalThis":
                return name_or_none if name_or_none in ("process", "globalThis", "fetch") else ""
            return f"{base}.{name_or_none}" if base else ""
        if node.type == "await_expression" and node.named_children:
            return self._meaning(node.named_children[0], depth + 1)
        if node.type == "call_expression":
            loaded = self._loaded(node)
            return loaded.removeprefix("node:") if loaded is not None else ""
        return ""

    def _loaded(self, node: tree_sitter.Node) -> str | None:
        """The constant name in `require("…")` or `import("…")`."""
        function, arguments = node.child_by_field_name("function"), arguments_of(node)
        if function is None or len(arguments) < 1:
            return None
        function = inside(function)
        if function.type != "import" and not (
            function.type == "identifier" and self.syntax.name(function) == "require"
        ):
            return None
        return self.syntax.constant(arguments[0])

    def _assigned(self, name: tree_sitter.Node | None, value: tree_sitter.Node | None) -> None:
        """`const p = process`, `const {eval: e} = globalThis`, `const {get} = require("http")`."""
        if name is None or value is None:
            return
        meaning = self._meaning(value)
        if not meaning:
            return
        if name.type == "identifier":
            self.stands_for[self.syntax.name(name)] = meaning
            return
        if name.type != "object_pattern":
            return
        for item in name.named_children:
            key = item.child_by_field_name("key") if item.type == "pair_pattern" else item
            if item.type in ("object_assignment_pattern", "assignment_pattern"):
                key = item.child_by_field_name("left")
            if key is None:
                continue
            taken = (
                self.syntax.constant(key) if key.type in ("string", "computed_property_name") else self.syntax.name(key)
            )
            local = item.child_by_field_name("value") if item.type == "pair_pattern" else key
            if taken is None:
                continue
            if meaning == "process" and taken in self.book.process:
                self._refuse(self.book.process[taken], f"process.{taken}", key)
            elif meaning == "globalThis" and taken in self.book.code:
                self._refuse(self.book.code[taken], taken, key)
            elif local is not None:
                full = taken if meaning == "globalThis" else f"{meaning}.{taken}"
                self.stands_for[self.syntax.name(local)] = full

    # -- modules

    def _import(self, node: tree_sitter.Node) -> None:
        source = node.child_by_field_name("source")
        name = self.syntax.constant(source) if source is not None else None
        if source is None or name is None:
            return
        self._module(name, source)
        plain = name.removeprefix("node:")
        for clause in node.named_children:
            if clause.type != "import_clause":
                continue
            for item in clause.named_children:
                if item.type == "identifier":
                    self.stands_for[self.syntax.name(item)] = plain
                elif item.type == "namespace_import" and item.named_children:
                    self.stands_for[self.syntax.name(item.named_children[0])] = plain
                elif item.type == "named_imports":
                    self._named_imports(item, plain)

    def _named_imports(self, node: tree_sitter.Node, module: str) -> None:
        for item in node.named_children:
            taken, local = item.child_by_field_name("name"), item.child_by_field_name("alias")
            if taken is None:
                continue
            if module == "process" and self.syntax.name(taken) in self.book.process:
                self._refuse(self.book.process[self.syntax.name(taken)], f"process.{self.syntax.name(taken)}", taken)
            self.stands_for[self.syntax.name(local or taken)] = f"{module}.{self.syntax.name(taken)}"

    def _module(self, name: str, node: tree_sitter.Node) -> None:
        rule = self.book.modules.get(name.removeprefix("node:").rstrip("/"))
        if rule is not None:
            self._refuse(rule, name, node)
        elif name.lower().startswith("data:"):
            self._refuse(self.book.data, name, node)

    # -- calls

    def _call(self, node: tree_sitter.Node) -> None:
        function = node.child_by_field_name("function") or node.child_by_field_name("constructor")
        if function is None:
            return
        arguments = arguments_of(node)
        callee = inside(function)
        if callee.type == "import" or (callee.type == "identifier" and self.syntax.name(callee) == "require"):
            self._load(node, callee, arguments)
            return
        if callee.type in ("member_expression", "subscript_expression"):
            self._method(node, callee, arguments)
        if callee.type == "identifier" and self.syntax.name(callee) in self.book.globals:
            if self.syntax.name(callee) not in self.declared:
                self._network(self.book.globals[self.syntax.name(callee)], self.syntax.name(callee), node, arguments)
            return
        full = self._meaning(callee)
        rule = self.book.calls.get(full) or self.book.globals.get(full)
        if rule is not None:
            self._network(rule, full, node, arguments)
        elif full.startswith("child_process."):
            self._shell(full.partition(".")[2], arguments)

    def _load(self, node: tree_sitter.Node, callee: tree_sitter.Node, arguments: list[tree_sitter.Node]) -> None:
        name = self.syntax.constant(arguments[0]) if arguments else None
        self.handled.add(callee.id)
        if name is None:
            self._refuse(self.book.dynamic_module, self.syntax.text(callee), node)
        else:
            self._module(name, node)

    def _method(self, node: tree_sitter.Node, callee: tree_sitter.Node, arguments: list[tree_sitter.Node]) -> None:
        """Calls through an object: `x.require("fs")`, `Reflect.get(globalThis, "eval")`, `x.constructor("code")()`."""
        target, name = self.syntax.member(callee)
        if target is None:
            return
        texts = [self.syntax.constant(argument) for argument in arguments[:2]]
        if name in ("require", "_load", "getBuiltinModule") and texts and texts[0] is not None:
            self._module(texts[0], node)
        elif name == "constructor" and any(texts) and inside(target).type not in ("this", "super"):
            self._refuse(self.book.code.get("Function"), "constructor", callee)
        elif name in ("get", "getOwnPropertyDescriptor") and len(texts) > 1 and texts[1] is not None:
            meaning = self._meaning(arguments[0])
            if meaning == "globalThis":
                self._refuse(self.book.code.get(texts[1]), texts[1], node)
            elif meaning == "process":
                self._refuse(self.book.process.get(texts[1]), f"process.{texts[1]}", node)

    def _network(self, rule: Rule, subject: str, node: tree_sitter.Node, arguments: list[tree_sitter.Node]) -> None:
        if not any(_LOOPBACK.match(self.syntax.beginning(argument)) for argument in arguments[:2]):
            self._refuse(rule, subject, node)

    def _shell(self, name: str, arguments: list[tree_sitter.Node]) -> None:
        if name not in _SHELL_CALLS | _PROGRAM_CALLS or not arguments:
            return
        first = self.syntax.constant(arguments[0])
        if first is None:
            return
        words = [first]
        if name in _PROGRAM_CALLS and len(arguments) > 1 and arguments[1].type == "array":
            words += [self.syntax.constant(item) or "\0" for item in arguments[1].named_children]
        text = " ".join(words)
        for rule in self.book.subprocess:
            if rule.pattern is not None and rule.pattern.search(text):
                self._refuse(rule, text.replace("\0", "…"), arguments[0])
                return
        line, column = self.syntax.position(arguments[0])
        if name in _PROGRAM_CALLS:
            self.found += bash.read_command(words, self.level, self.budget, Origin(line, column, exact=False))
        else:
            self.found += bash.read(first, self.level, self.budget, Origin().nested(self.code, first, line, column))
