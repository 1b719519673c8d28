"""Memory: what one client believes to be in its session, and what a restart may have taken from it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

MAY_LOSE_SECONDS = 10.0
"""After a kill no value may be older than this before it."""

CODE = """
import hashlib as _h, json as _j, pathlib as _p
if "n" not in globals():
    n, blob = 0, b""
_before, _digest = n, _h.sha256(blob).hexdigest()
_ledger = _p.Path("ledger.txt")
_lines = _ledger.read_text().split() if _ledger.exists() else []
n = {number}
blob = _h.sha256("{owner}-{number}".encode()).digest() * {repeat}
with _ledger.open("a") as _f:
    _f.write("{number}\\n")
print("STATE " + _j.dumps({{"before": _before, "digest": _digest, "file": int(_lines[-1]) if _lines else 0,
      "twice": len(_lines) - len(set(_lines))}}))
"""
"""Replaces a number and a blob made of it, adds the number to a file, and says what was there before."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a stateful cell found: number and blob of the variables, last number of the file, numbers that are in the
    file more than once."""

    before: int
    digest: str
    file: int
    twice: int


@dataclass(slots=True)
class Memory:
    """The numbers that one client has sent, and when each was answered."""

    owner: str
    payload_kb: int
    sent: int = 0
    codes: list[str] = field(default_factory=list)
    """SHA-256 of every cell that was made, each of which is like no other."""
    answered: list[tuple[float, int]] = field(default_factory=list)
    life: int = 1
    """The life of the server that gave the last answer; by the clock alone an answer that was on its way when the
    server was killed would seem to come from the next one."""

    def next_cell(self) -> str:
        """The code of the next stateful cell."""
        self.sent += 1
        code = CODE.format(number=self.sent, owner=self.owner, repeat=self.payload_kb * 32)
        self.codes.append(hashlib.sha256(code.encode()).hexdigest())
        return code

    def digest(self, number: int) -> str:
        """Of the blob that belongs to a number."""
        blob = hashlib.sha256(f"{self.owner}-{number}".encode()).digest() * (self.payload_kb * 32) if number else b""
        return hashlib.sha256(blob).hexdigest()

    def killed(self, life: int) -> bool:
        """Whether the server was killed since the last answer; it now lives its `life`-th life, counted from 1."""
        return bool(self.answered) and life > self.life

    def least(self, life: int, killed_at: list[float]) -> int:
        """The oldest number that may be there now: the last one answered, or what was answered 10 s before the end of
        the life in which that was; `killed_at` has the ends of all lives so far."""
        if not self.answered:
            return 0
        if not self.killed(life):
            return self.answered[-1][1]
        latest = killed_at[self.life - 1] - MAY_LOSE_SECONDS
        return max((number for at, number in self.answered if at <= latest), default=0)

    def take(self, seen: Seen, at: float, life: int) -> int:
        """A cell was answered: what it found is so from now on. Returns how many answered cells are gone."""
        self.life = life
        gone = sum(number > seen.before for _, number in self.answered)
        self.answered = [one for one in self.answered if one[1] <= seen.before]
        self.answered.append((at, self.sent))
        return gone


def read(text: str) -> Seen | None:
    """What a stateful cell printed, None where it is not there."""
    for line in text.splitlines():
        if line.startswith("STATE "):
            try:
                return Seen(**json.loads(line.removeprefix("STATE ")))
            except (ValueError, TypeError):
                return None
    return None
