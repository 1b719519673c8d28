"""Plain text of tables and long containers for a reader who pays by the character: shape, types, head and tail."""

from __future__ import annotations

from typing import Any

import pandas as pd

WIDTH = 160
"""Characters of a table's line."""
MAX_COLUMNS = 20
MAX_ROWS = 60
"""Rows up to which a table that is small enough otherwise is shown whole."""
MAX_TABLE = 6_000
"""Characters of a table that is shown whole."""
MAX_BLOCKS = 3_000
"""The same of a table that is broken into blocks of columns."""
HEAD, TAIL = 5, 3
"""Rows of a digest."""
CELL = 40
"""Characters of a cell of a digest."""
LISTED = 40
"""Columns whose types a digest names."""
MAX_ITEMS = 200
"""Items shown of a list, a tuple, a set or a dict."""

_OPTIONS = ("display.max_rows", "display.max_columns", "display.width", "display.max_colwidth")
_ours: list[Any] = []


def set_up() -> None:
    """Let pandas show tables as in a notebook: it takes us for a terminal, and would leave out what is over 80 wide."""
    pd.set_option("display.max_columns", MAX_COLUMNS, "display.width", WIDTH)
    _ours[:] = map(pd.get_option, _OPTIONS)


def digest(frame: Any) -> str:
    """A DataFrame as text: whole where it is small, else its shape, its columns' types, the first and last rows.

    Who has set pandas' display options gets what they say.
    """
    try:
        if list(map(pd.get_option, _OPTIONS)) != _ours:
            return repr(frame)
        rows, columns = frame.shape
        if rows <= MAX_ROWS and columns <= MAX_COLUMNS:
            text = repr(frame)
            # a table that is too wide is broken into blocks, which say so with a backslash
            if len(text) <= (MAX_BLOCKS if " \\\n" in text else MAX_TABLE):
                return text
        return _digest(frame, rows, columns)
    except Exception:
        return repr(frame)  # a subclass of the guest's, or a DataFrame that it has changed


def _digest(frame: Any, rows: int, columns: int) -> str:
    named = zip(frame.columns[:LISTED], frame.dtypes[:LISTED], strict=True)
    types = [f"{_cut(str(name))} {kind}" for name, kind in named]
    more = f", … {columns - LISTED} more" if columns > LISTED else ""
    lines = [f"DataFrame of {rows:,} rows x {columns:,} columns", f"columns: {', '.join(types)}{more}"]
    whole = rows <= HEAD + TAIL + 1
    parts = [frame] if whole else [frame.iloc[:HEAD], frame.iloc[-TAIL:]]
    shown = pd.concat([part.iloc[:, :MAX_COLUMNS] for part in parts])
    fitting = _fitting(shown)
    table = shown.iloc[:, :fitting].to_string(max_colwidth=CELL, line_width=None).split("\n")
    if not whole:
        gap = len(table) - TAIL
        table[gap:gap] = ["…"]
    lines += [line[: 2 * WIDTH].rstrip() for line in table]
    if fitting < columns:
        lines.append(f"(the first {fitting} of {columns:,} columns)")
    return "\n".join(lines)


def _fitting(frame: Any) -> int:
    """How many of the first columns fit into a line, at least one."""
    low, high = 1, frame.shape[1]
    while low < high:
        middle = (low + high + 1) // 2
        width = len(frame.iloc[:, :middle].to_string(max_colwidth=CELL, line_width=None).split("\n", 1)[0])
        low, high = (middle, high) if width <= WIDTH else (low, middle - 1)
    return low


def print_frame(frame: Any, printer: Any, cycle: bool) -> None:
    """IPython's way to the plain text of a DataFrame, also of one inside a list."""
    for number, line in enumerate(digest(frame).split("\n")):
        if number:
            printer.break_()
        printer.text(line)


def _cut(text: str) -> str:
    return text if len(text) <= CELL else text[: CELL - 1] + "…"
