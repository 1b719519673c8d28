"""What the local Hub can be told to do wrong, at any request."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import Literal

Moment = Literal["before", "middle", "after"]


@dataclass(frozen=True, slots=True)
class Status:
    """Answer with this status instead of carrying the request out."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "told to fail"


@dataclass(frozen=True, slots=True)
class Slow:
    """Carry the request out, but answer only after `seconds`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cut:
    """Break the connection: before the request is carried out, in the middle of the answer, or instead of it."""

    moment: Moment


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL the process `pid`, before or after the request is carried out."""

    pid: int
    moment: Moment = "after"

    def __call__(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


Deed = Status | Slow | Cut | Kill


@dataclass(slots=True)
class Fault:
    """`deed` at the request with this key, or at all from that one on if it `lasts`."""

    method: str
    route: str
    number: int
    deed: Deed
    lasts: bool = False

    def hits(self, key: tuple[str, str, int]) -> bool:
        """Whether the request with this key is to fail."""
        method, route, number = key
        return (method, route) == (self.method, self.route) and (
            number == self.number or (self.lasts and number > self.number)
        )
