"""The static policy: what code is refused before it runs, by rules that are data (rules.toml).

A courtesy, not the wall: it gives the model a clear early "not allowed here" and the operator a count. What code really
can do is decided by the kernel sandbox.
"""

from __future__ import annotations

from importlib import import_module

from executor.policy.budget import Budget, TooComplex
from executor.policy.rules import Level, Rule, all_rules, rulebook
from executor.results import LANGUAGES, Language, Violation

__all__ = ["Level", "Rule", "check", "load", "rules"]

MAX_VIOLATIONS = 20


def check(code: str, language: Language, level: Level) -> tuple[Violation, ...]:
    """What a level refuses in a piece of code, in the order of the code, at most 20; empty where it may run.

    Never raises, whatever the string holds: Python with syntax errors has no violations, since it will not run either,
    and code that cannot be checked in 1.5 s of processor time gets the violation that says so. Waits for nothing; a
    cell of ordinary size takes a fraction of a millisecond, a megabyte about two seconds at worst.
    """
    if level == "off":
        return ()
    try:
        # Readers and their parsers load on first use
        reader = import_module(f"executor.policy.{language}")
        found: list[Violation] = reader.read(code, level, Budget())
    except (TooComplex, RecursionError, MemoryError):
        rule = rulebook(level).first(language, "complexity")
        assert rule is not None
        return (rule.violation("", 1, 1),)
    # One word may be found on several ways
    unique = {(v.rule, v.line, v.column): v for v in reversed(found)}
    return tuple(sorted(unique.values(), key=lambda v: (v.line, v.column, v.rule))[:MAX_VIOLATIONS])


def load() -> None:
    """Load every reader and parser now, so that nobody's first cell waits for them; about 0.1 s."""
    for language in LANGUAGES:
        for level in ("strict", "standard"):
            check("x", language, level)


def rules() -> tuple[Rule, ...]:
    """Every rule, for documentation and the page."""
    return all_rules()
