"""All variables of a session as far as its cells have told of them: nothing is run to find out."""

from __future__ import annotations

import re
from collections.abc import Iterable

from executor.results import HistoryEntry, Variable

MAX_VARIABLES = 500
_ENDED = frozenset({"crashed", "memory", "lost"})
_ALL_LOST = "variables and imports are lost"
_RESET = re.compile(r"^\s*(?:%reset\b|get_ipython\(\)\.reset\()", re.MULTILINE)
_DELETED = re.compile(r"^\s*del[ (]+([\w ,]+)\)?\s*(?:#.*|;.*)?$", re.MULTILINE)
_RESTORED = "Session restored"
_LOST_NAME = re.compile(r"(\w+) \(")


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
        if _RESET.search(entry.code):
            found.clear()
        for names in _DELETED.findall(entry.code):
            for name in names.split(","):
                found.pop(name.strip(), None)
        for variable in result.variables:
            found.pop(variable.name, None)
            found[variable.name] = variable
        if result.status in _ENDED or any(_ALL_LOST in notice for notice in result.notices):
            found.clear()
    return list(reversed(found.values()))[:MAX_VARIABLES]
