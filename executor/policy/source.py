"""Where a piece of nested code (a command in a string, the body of a magic) stands in the cell."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """Turns positions of nested code into positions of the cell; lines and columns count from 1, in characters.

    `exact` means that the nested text stands in the cell letter for letter. Otherwise (escapes, pieces put together)
    every position becomes that of the piece's beginning, which is as near as can be said.
    """

    line: int = 1
    column: int = 1
    exact: bool = True

    def at(self, line: int, column: int) -> tuple[int, int]:
        """The cell's own position of a position in the nested text."""
        if not self.exact:
            return self.line, self.column
        return self.line + line - 1, column + (self.column - 1 if line == 1 else 0)

    def nested(self, within: str, text: str, line: int, column: int) -> Origin:
        """The origin of `text`, which was found in `within` (my own text) at or after a position of it."""
        start = offset_of(within, line, column)
        found = within.find(text, start, start + len(text) + 200) if text else -1
        if self.exact and found >= 0:
            before = within[start:found]
            rows = before.count("\n")
            begin = len(before) - before.rfind("\n") if rows else column + len(before)
            return Origin(*self.at(line + rows, begin))
        return Origin(*self.at(line, column), exact=False)


def offset_of(text: str, line: int, column: int) -> int:
    """The index into `text` of a line and a column; the end of the text where there is no such line."""
    start = 0
    for _ in range(line - 1):
        start = text.find("\n", start) + 1
        if start == 0:
            return len(text)
    return start + column - 1
