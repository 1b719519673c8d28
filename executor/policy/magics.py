"""What IPython's magics run: a command of the shell, a script, or Python again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from executor.policy.wrappers import SHELLS

Kind = Literal["python", "bash"]

# IPython.core.magics and the aliases of IPython.core.alias
_SHELL_LINES = frozenset({"sx", "system", "!", "sc", "alias"})
_ALIASES = frozenset({"cat", "cp", "ldir", "lf", "lk", "ll", "ls", "lx", "mkdir", "mv", "rm", "rmdir"})
_PYTHON_LINES = frozenset({"time", "timeit", "prun", "debug", "capture", "lprun", "memit", "mprun"})
_PYTHON_SCRIPTS = frozenset({"python", "python2", "python3", "pypy", "pypy3"})
_PACKAGING = frozenset({"pip", "conda", "mamba", "micromamba", "uv"})

_AUTOMATIC = _SHELL_LINES | _ALIASES | _PYTHON_LINES | _PACKAGING
"""Magics that also work without their `%` in a cell of one line (automagic)."""

RUN_MAGIC = frozenset({"run_line_magic", "run_cell_magic", "magic"})
"""Methods of IPython's shell that run a magic: its name, its line, and a body if it has one."""

_RUN_SHELL = frozenset({"system", "getoutput", "system_raw", "system_piped"})
_RUN_PYTHON = frozenset({"run_cell", "run_cell_async", "ex", "ev"})

_NAMED = re.compile(r"\s*([\w.*]+)(.*)")
_ASSIGNED = re.compile(r"\s*=(?!=)|\s*,")
_FIELD = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True, slots=True)
class Piece:
    """Code that a magic runs."""

    kind: Kind
    text: str


def pieces(name: str, line: str, body: str = "") -> Iterator[Piece]:
    """The code that a magic runs, or may run: several readings of one line where its options leave it open."""
    name = name.lstrip("%")
    yield from fields(line)
    if name in _SHELL_LINES:
        line = re.sub(r"^(-\w+\s+)*", "", line)
        if name == "sc":
            line = line.partition("=")[2]
        elif name == "alias":
            line = line.partition(" ")[2]
        yield Piece("bash", f"{line}\n{body}")
    elif name in SHELLS or name == "script":
        yield from _script(name, line, body)
    elif name in _PYTHON_SCRIPTS:
        yield Piece("python", body)
    elif name in _PYTHON_LINES:
        yield from (Piece("python", text) for text in _without_options(line))
        yield Piece("python", body)
    elif re.fullmatch(r"[\w.+-]+", name):
        yield Piece("bash", f"{name} {line}")  # an alias, or with %rehashx any program


def without_percent(cell: str) -> Iterator[Piece]:
    """What a cell of one line runs where it begins with a magic's name alone: `rm x`, `sx ls`, `time f()`."""
    if len(cell.splitlines()) != 1:
        return
    match = _NAMED.match(cell)
    if match is None or match[1] not in _AUTOMATIC or not match[2].strip() or _ASSIGNED.match(match[2]):
        return
    yield from pieces(match[1], match[2].strip())


def called(method: str, texts: Sequence[str]) -> list[Piece] | None:
    """What a method of IPython's shell runs with these arguments; None where it is not one that runs anything."""
    if method in _RUN_SHELL and len(texts) == 1:
        return [command(texts[0]), *fields(texts[0])]
    if method in _RUN_PYTHON and len(texts) == 1:
        return [Piece("python", texts[0])]
    if method in RUN_MAGIC and len(texts) in (2, 3):
        return list(pieces(*texts))
    return None


def command(line: str) -> Piece:
    """The command behind a `!`; `{sys.executable}` in it is how notebooks write `python`."""
    return Piece("bash", line.replace("{sys.executable}", "python"))


def fields(line: str) -> Iterator[Piece]:
    """The expressions in braces, which IPython puts into commands and magic lines by evaluating them."""
    for match in _FIELD.finditer(line):
        yield Piece("python", match[1].strip())


def _script(name: str, line: str, body: str) -> Iterator[Piece]:
    words = re.sub(r"^(\s*--(?:bg|no-raise-error|(?:out|err|proc)[= ]\S+))*", "", line)
    program = words if name == "script" else f"{name} {words}"
    yield Piece("bash", program)
    first = re.match(r"(?:.*/)?([\w.]+)", program.split(" ")[0])
    if first and (first[1] in SHELLS or first[1] == "env"):
        yield Piece("bash", body)
    elif first and re.match(r"python|pypy", first[1]):
        yield Piece("python", body)


def _without_options(line: str) -> Iterator[str]:
    """The line without its options; whether a word after `-n` is its value is not known here, so both."""
    rest = line.strip()
    yield rest
    for _ in range(8):
        option = re.match(r"-\w\S*\s*", rest)
        if option is None:
            return
        rest = rest[option.end() :]
        yield rest
        value = re.match(r"[^\s-]\S*\s+", rest)
        if value is not None:
            yield rest[value.end() :]
            if rest[value.end() :].startswith("-"):
                rest = rest[value.end() :]
