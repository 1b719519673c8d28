"""Label values from outside, kept few: what a caller or a guest can name must not become a time series each."""

from __future__ import annotations

import re
from collections.abc import Iterable

OTHER = "other"
_SIGNAL = re.compile(r"\bsignal (\d{1,2})\b")
_FIT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.: -]{0,63}")


class Bounded:
    """Lets at most `most` different, short and plain values through; everything else is `other`."""

    def __init__(self, known: Iterable[str] = (), *, most: int = 100) -> None:
        self._values = {OTHER, *known}
        self._most = most

    def __call__(self, value: str) -> str:
        """`value` as a label value."""
        if value in self._values:
            return value
        if len(self._values) >= self._most or not _FIT.fullmatch(value):
            return OTHER
        self._values.add(value)
        return value


def cause_of_death(text: str) -> str:
    """What replaced a worker, as a label value: `signal_9`, `exit`, or the limit or stop that the text begins with.

    >>> cause_of_death("memory: signal 9 (killed)"), cause_of_death("signal 11 (crash)"), cause_of_death("exit code 3")
    ('memory', 'signal_11', 'exit')
    """
    head, colon, _ = text.partition(":")
    if colon:
        return head
    if found := _SIGNAL.search(text):
        return f"signal_{found[1]}"
    return "exit" if "exit" in text else text
