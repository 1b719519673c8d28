"""What a bash word can stand for, as far as its text alone says: quotes, escapes, braces, known variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from executor.policy.syntax import Syntax

if TYPE_CHECKING:
    import tree_sitter

UNKNOWN = "\x00"
"""Stands for a piece that only running would tell. NUL cannot be part of a bash word."""

MAX_VALUES = 8
MAX_LENGTH = 4_096
_MAX_DEPTH = 12

Values = tuple[str, ...]
Variables = Mapping[str, Values]

# Quoted characters that would otherwise be read as a pattern or braces are moved out of the way and back.
_SPECIAL = "*?[]{},"
_HIDE = {ord(c): 0xE000 + i for i, c in enumerate(_SPECIAL)}
_SHOW = {0xE000 + i: c for i, c in enumerate(_SPECIAL)}

_BRACES = re.compile(r"\{([^{},]*(?:,[^{},]*)+)\}")
_ANSI = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|([0-7]{1,3})|c(.)|(.))", re.DOTALL
)
_ANSI_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "E": "\x1b", "f": "\f", "v": "\v"}
_DEFAULT = re.compile(r":?[-=+]")


def values(syntax: Syntax, node: tree_sitter.Node, variables: Variables) -> Values:
    """The texts that a word can stand for, UNKNOWN inside where running would tell; at most MAX_VALUES."""
    found: dict[str, None] = {}
    for value in _values(syntax, node, variables, 0):
        for text in braces(value):
            found[text.translate(_SHOW)] = None
    return tuple(found)[:MAX_VALUES]


def patterns(syntax: Syntax, node: tree_sitter.Node, variables: Variables) -> Values:
    """The same texts where one of them holds an unquoted `*`, `?` or `[`, so that file names would be put in."""
    found = (text for value in _values(syntax, node, variables, 0) for text in braces(value))
    return tuple(text.translate(_SHOW) for text in found if any(c in text for c in "*?["))[:MAX_VALUES]


def braces(text: str) -> list[str]:
    """The words that brace expansion makes of one, at most MAX_VALUES."""
    done: list[str] = []
    todo = [text]
    while todo and len(done) < MAX_VALUES:
        word = todo.pop(0)
        match = _BRACES.search(word)
        if match is None or len(todo) > MAX_VALUES:
            done.append(word)
            continue
        before, after = word[: match.start()], word[match.end() :]
        todo += [before + part + after for part in match[1].split(",")[:MAX_VALUES]]
    return done


def ansi_c(text: str) -> str:
    """What `$'…'` holds, without the quotes around it."""

    def replace(match: re.Match[str]) -> str:
        for digits, base in ((match[1] or match[2] or match[3], 16), (match[4], 8)):
            if digits:
                code = int(digits, base)
                # NUL ends the string in bash, and surrogates are no characters
                return chr(code) if 0 < code < 0xD800 or 0xDFFF < code < 0x110000 else ""
        if match[5]:
            return chr(ord(match[5]) & 0x1F)
        return _ANSI_LETTERS.get(match[6], match[6])

    return _ANSI.sub(replace, text)


def _values(syntax: Syntax, node: tree_sitter.Node, variables: Variables, depth: int) -> Values:
    if depth > _MAX_DEPTH:
        return (UNKNOWN,)
    if node.end_byte - node.start_byte > MAX_LENGTH * 4:
        # Too long for a name or a flag; whole scripts in one quoted string are read by `literal`
        return (UNKNOWN,)
    kind = node.type
    text = syntax.text(node)
    if kind in ("raw_string", "ansi_c_string"):
        inner = text[1:-1] if kind == "raw_string" else ansi_c(text[2:-1])
        return (inner.translate(_HIDE),)
    if kind == "string":
        return _pieces(syntax, node, variables, depth, quoted=True)
    if kind in ("concatenation", "command_name", "translated_string"):
        return _pieces(syntax, node, variables, depth, quoted=False)
    if kind == "simple_expansion":
        return variables.get(text[1:], (UNKNOWN,))
    if kind == "expansion":
        return _expansion(syntax, node, variables, depth)
    if kind == "command_substitution":
        return _echoed(syntax, node, variables, depth)
    if kind in ("process_substitution", "arithmetic_expansion"):
        return (UNKNOWN,)
    return (_unescaped(text),)


def literal(syntax: Syntax, node: tree_sitter.Node) -> str:
    """The text of a quoted word of any length, with expansions left as they are written."""
    text = syntax.text(node)
    if node.type == "raw_string":
        return text[1:-1]
    if node.type == "ansi_c_string":
        return ansi_c(text[2:-1])
    if node.type == "string":
        return re.sub(r'\\([\\$`"])', r"\1", text[1:-1].replace("\\\n", ""))
    return text


def _pieces(syntax: Syntax, node: tree_sitter.Node, variables: Variables, depth: int, *, quoted: bool) -> Values:
    start, end = node.start_byte, node.end_byte
    if quoted:
        start, end = start + 1, end - 1
    if node.type == "translated_string":
        start += 1
    results: list[str] = [""]
    for child in node.named_children:
        # The grammar gives some literal pieces (spaces, braces) no node of their own
        gap = _literal_piece(syntax, start, child.start_byte, quoted=quoted)
        if child.type == "string_content":
            options: Values = (_literal_piece(syntax, child.start_byte, child.end_byte, quoted=True),)
        else:
            options = _values(syntax, child, variables, depth + 1)
            if quoted:
                options = tuple(option.translate(_HIDE) for option in options)
        results = [r + gap + o for r in results for o in options][: MAX_VALUES * 2]
        if any(len(r) > MAX_LENGTH for r in results):
            return (UNKNOWN,)
        start = child.end_byte
    tail = _literal_piece(syntax, start, end, quoted=quoted)
    return tuple(r + tail for r in results)


def _literal_piece(syntax: Syntax, start: int, end: int, *, quoted: bool) -> str:
    text = syntax.source[start:end].decode(errors="replace") if end > start else ""
    if quoted:
        return re.sub(r'\\([\\$`"])', r"\1", text.replace("\\\n", "")).translate(_HIDE)
    return _unescaped(text)


def _unescaped(text: str) -> str:
    if "\\" not in text:
        return text
    return re.sub(r"\\(.)", lambda m: m[1].translate(_HIDE), text.replace("\\\n", ""), flags=re.DOTALL)


def _expansion(syntax: Syntax, node: tree_sitter.Node, variables: Variables, depth: int) -> Values:
    text = syntax.text(node)
    name = re.match(r"\$\{(\w+|[@*])", text)
    if name is None:
        return (UNKNOWN,)
    known = variables.get(name[1], ())
    rest = text[name.end() :]
    if rest.startswith("["):  # an element of an array: any of them
        rest = rest[rest.find("]") + 1 :]
    if _DEFAULT.match(rest) and len(node.named_children) > 1:
        known += _values(syntax, node.named_children[-1], variables, depth + 1)
    elif not rest.startswith("}"):
        known = (UNKNOWN,)
    return known[:MAX_VALUES] or (UNKNOWN,)


def _echoed(syntax: Syntax, node: tree_sitter.Node, variables: Variables, depth: int) -> Values:
    """What `$(echo …)` gives; UNKNOWN for every other command."""
    children = node.named_children
    if len(children) != 1 or children[0].type != "command":
        return (UNKNOWN,)
    command = children[0]
    name = command.child_by_field_name("name")
    if name is None or syntax.text(name) not in ("echo", "printf"):
        return (UNKNOWN,)
    words = command.children_by_field_name("argument")
    if len(words) > 16:
        return (UNKNOWN,)
    options = [_values(syntax, word, variables, depth + 1) for word in words]
    most = max((len(o) for o in options), default=0)
    lines = (" ".join(o[min(i, len(o) - 1)] for o in options) for i in range(min(most, MAX_VALUES)))
    return tuple(re.sub(r"^(-[neE]+|'?%s(\\n)?) ", "", line) for line in lines) or (UNKNOWN,)
