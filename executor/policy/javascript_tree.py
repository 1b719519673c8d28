"""Trees of JavaScript code: names, members, arguments, and the constant texts that expressions give."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from executor.policy.budget import Budget
from executor.policy.syntax import Syntax

if TYPE_CHECKING:
    import tree_sitter

_ESCAPE = re.compile(
    r"\\(?:u\{([0-9A-Fa-f]{1,6})\}|u([0-9A-Fa-f]{4})|x([0-9A-Fa-f]{2})|([0-7]{1,3})|(\r\n|[\n\r\u2028\u2029])|(.))",
    re.DOTALL,
)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v"}


class JavaScript(Syntax):
    """A parsed cell. Texts and names are given as the engine reads them, without escapes."""

    __slots__ = ()

    def __init__(self, code: str, budget: Budget) -> None:
        """Raises TooComplex where the parser does not come to an end in time."""
        super().__init__(code, "javascript", budget)

    def name(self, node: tree_sitter.Node) -> str:
        """The name that an identifier or a key is."""
        return _unescaped(self.text(node))

    def member(self, node: tree_sitter.Node) -> tuple[tree_sitter.Node | None, str | None]:
        """The object and the constant name of `a.b` or `a["b"]`."""
        target = node.child_by_field_name("object")
        key = node.child_by_field_name("property")
        if key is not None:
            return target, self.name(key)
        key = node.child_by_field_name("index")
        return target, self.constant(key) if key is not None else None

    def constant(self, node: tree_sitter.Node, depth: int = 0) -> str | None:
        """The string that an expression of constants gives, else None."""
        node = inside(node)
        if node.type in ("string", "template_string"):
            if any(child.type == "template_substitution" for child in node.named_children):
                return None
            return _unescaped(self.text(node)[1:-1])
        if node.type == "computed_property_name" and node.named_children:
            return self.constant(node.named_children[0], depth + 1) if depth < 8 else None
        if node.type == "binary_expression" and depth < 20:
            left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
            operator = node.child_by_field_name("operator")
            if left is None or right is None or operator is None or operator.type != "+":
                return None
            begin = self.constant(left, depth + 1)
            end = self.constant(right, depth + 1) if begin is not None else None
            return begin + end if begin is not None and end is not None else None
        return None

    def beginning(self, node: tree_sitter.Node) -> str:
        """The constant beginning of an address, or the host in an object of options."""
        node = inside(node)
        if node.type == "object":
            for pair in node.named_children[:32]:
                key, value = pair.child_by_field_name("key"), pair.child_by_field_name("value")
                if key is not None and value is not None and self.name(key) in ("host", "hostname"):
                    return self.constant(value) or ""
            return ""
        if node.type == "template_string" and node.named_children:
            first = node.named_children[0]
            return self.text(first) if first.type == "string_fragment" else ""
        return self.constant(node) or ""


def inside(node: tree_sitter.Node) -> tree_sitter.Node:
    """The expression within parentheses; of `(0, eval)` the last one."""
    for _ in range(16):
        if node.type not in ("parenthesized_expression", "sequence_expression") or not node.named_children:
            return node
        node = node.named_children[-1]
    return node


def arguments_of(node: tree_sitter.Node) -> list[tree_sitter.Node]:
    """The arguments of a call."""
    given = node.child_by_field_name("arguments")
    if given is None:
        return []
    if given.type == "template_string":  # require`fs`
        return [given]
    return [child for child in given.named_children if child.type != "comment"]


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        digits, octal = match[1] or match[2] or match[3], match[4]
        if digits or octal:
            code = int(digits, 16) if digits else int(octal, 8)
            return chr(code) if code < 0x110000 else ""
        if match[5]:  # a line that goes on
            return ""
        return _LETTERS.get(match[6], match[6])

    return _ESCAPE.sub(replace, text)
