"""What a terminal would show of printed text in the end: no escapes, progress bars in their last state."""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]"  # colours, cursor movements: ECMA-48, control sequences
    r"|\][^\x07\x1b]*(?:\x07|\x1b\\)?"  # window titles, links
    r"|[PX^_][^\x1b]*(?:\x1b\\)?"
    r"|[ -/]*[0-~])?"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_OVERWRITTEN = re.compile(r"[^\n\x08]\x08")


def plain(text: str) -> str:
    """`text` as it stands on the screen in the end: of what a carriage return lets be overwritten, the last state."""
    if text.isprintable() or not ("\r" in text or _CONTROLS.search(text)):
        return text
    text = _ESCAPES.sub("", text).replace("\r\n", "\n")
    if "\r" in text:
        text = "\n".join(_last_state(line) for line in text.split("\n"))
    if "\x08" in text:
        text = _OVERWRITTEN.sub("", text)
    return _CONTROLS.sub("", text)


def _last_state(line: str) -> str:
    return next((part for part in reversed(line.split("\r")) if part.strip()), "") if "\r" in line else line
