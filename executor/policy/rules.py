"""The rules of the static policy, read once from rules.toml."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Literal

from executor.results import Language, Violation

Level = Literal["strict", "standard", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. `match` names the way of looking, which the reader of the language knows; the rest is its data.

    `reason` completes the sentence "`x` is not allowed here: …" and says what to do instead.
    """

    id: str
    language: Language
    levels: tuple[Level, ...]
    match: str
    reason: str
    names: frozenset[str] = frozenset()
    attributes: frozenset[str] = frozenset()
    allow: frozenset[str] = frozenset()
    calls: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    globals: frozenset[str] = frozenset()
    magics: frozenset[str] = frozenset()
    arguments: tuple[re.Pattern[str], ...] = ()
    targets: re.Pattern[str] | None = None
    pattern: re.Pattern[str] | None = None
    needs: str = ""

    def violation(self, subject: str, line: int, column: int) -> Violation:
        """What the model is told; `subject` is what stands in the code, line and column count from 1."""
        # one line, and nothing in it that cannot be sent
        subject = " ".join(subject.encode(errors="replace").decode().split())
        shown = subject if len(subject) <= 80 else subject[:77] + "…"
        text = f"`{shown}` is not allowed here: {self.reason}." if shown else f"Not allowed here: {self.reason}."
        return Violation(rule=self.id, message=text, line=line, column=column)


@dataclass(slots=True)
class Rulebook:
    """The rules of one level, by language and way of looking."""

    level: Level
    by_match: dict[tuple[Language, str], list[Rule]] = field(default_factory=dict)

    def of(self, language: Language, match: str) -> list[Rule]:
        """The rules for a way of looking; empty where this level has none."""
        return self.by_match.get((language, match), [])

    def first(self, language: Language, match: str) -> Rule | None:
        """The rule for a way of looking that has at most one."""
        return next(iter(self.of(language, match)), None)

    def named(self, language: Language, match: str) -> dict[str, Rule]:
        """Rules by each name that they hold."""
        return {name: rule for rule in self.of(language, match) for name in rule.names}


@cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule, in the order of the file."""
    text = (resources.files(__package__) / "rules.toml").read_text(encoding="utf-8")
    return tuple(_read(tomllib.loads(text)["rule"]))


@cache
def rulebook(level: Level) -> Rulebook:
    """The rules that hold at a level."""
    book = Rulebook(level)
    for rule in all_rules():
        if level in rule.levels:
            book.by_match.setdefault((rule.language, rule.match), []).append(rule)
    return book


_SETS = ("names", "attributes", "allow", "calls", "addresses", "globals", "magics")


def _read(tables: list[dict[str, object]]) -> Iterator[Rule]:
    for table in tables:
        values: dict[str, object] = dict(table)
        for key in _SETS:
            values[key] = frozenset(_strings(table.get(key, [])))
        values["levels"] = _strings(table["levels"])
        values["arguments"] = tuple(re.compile(text) for text in _strings(table.get("arguments", [])))
        for key in ("targets", "pattern"):
            if key in table:
                values[key] = re.compile(str(table[key]))
        yield Rule(**values)  # type: ignore[arg-type]  # the file is ours, and tests load every line of it


def _strings(value: object) -> tuple[str, ...]:
    assert isinstance(value, list), f"rules.toml: {value!r} should be a list of strings"
    return tuple(str(item) for item in value)
