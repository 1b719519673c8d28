"""All variables of a session as far as its cells have told of them: nothing is run to find out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from executor.results import HistoryEntry, Variable

MAX_VARIABLES = 500
_ENDED = frozenset({"crashed", "memory", "lost"})
_ALL_LOST = "variables and imports are lost"
_TAKES_AWAY = re.compile(r"^[^\S\n]*(del[ (].*|%reset\b|get_ipython\(\)\.reset\()", re.MULTILINE)
_NAMES = re.compile(r"[\w ,]+")
_RESTORED = "Session restored"
_LOST_NAME = re.compile(r"\b(\w+) \(")


def known_variables(entries: Iterable[HistoryEntry]) -> list[Variable]:
    """The Python variables that the entries, oldest first, have told of and not taken away; the newest first.

    What the history no longer holds is not known, nor what code changes without an assignment. A `del`, `%reset`, the
    end of the process and what a restored session has lost count as far as they can be read.
    """
    found: dict[str, Variable] = {}
    for entry in entries:
        if entry.language != "python":
            continue
        result = entry.result
        for notice in result.notices:
            if notice.startswith(_RESTORED):
                for name in _LOST_NAME.findall(notice.partition("lost:")[2]):
                    found.pop(name, None)
        # a process that ended between two cells says so in the next one's stderr
        if _ALL_LOST in result.stderr:
            found.clear()
        reset, deleted = _taken_away(entry.code)
        if reset:
            found.clear()
        for name in deleted:
            found.pop(name, None)
        for variable in result.variables:
            found.pop(variable.name, None)
            found[variable.name] = variable
        if result.status in _ENDED or any(_ALL_LOST in notice for notice in result.notices):
            found.clear()
    return list(reversed(found.values()))[:MAX_VARIABLES]


def _taken_away(code: str) -> tuple[bool, list[str]]:
    """Whether the code resets all, and the names that it deletes.

    The code is a guest's, and everybody waits while this runs: its time grows with the code's length and no faster.
    So no pattern goes over the end of a line, and no two neighbouring parts of one match the same characters.
    """
    reset = False
    deleted: list[str] = []
    for statement in _TAKES_AWAY.findall(code):
        if statement.startswith("del"):
            deleted += _deleted(statement)
        else:
            reset = True
    return reset, deleted


def _deleted(statement: str) -> list[str]:
    """The names of a `del`; none where it deletes anything else, too."""
    targets = statement.removeprefix("del").partition("#")[0].partition(";")[0]
    names = targets.lstrip(" (").rstrip().removesuffix(")")
    return [name.strip() for name in names.split(",")] if _NAMES.fullmatch(names) else []
