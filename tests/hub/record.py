"""What was asked and answered, in order, with bodies: tests assert on it."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Exchange:
    """One request and its answer. `key` is the same for the same request of another run, e.g. `POST commit #1`."""

    method: str
    path: str
    route: str
    number: int
    headers: dict[str, str]
    body: bytes
    status: int = 0
    answer: bytes = b""
    fault: str = ""
    query: str = ""
    at: float = field(default=0.0)

    @property
    def key(self) -> tuple[str, str, int]:
        """Method, name of the route, and the number of this request among those of both, from 1."""
        return self.method, self.route, self.number

    @property
    def json(self) -> Any:
        """The request's body as JSON."""
        return json.loads(self.body)

    @property
    def answered(self) -> Any:
        """The answer's body as JSON."""
        return json.loads(self.answer)

    @property
    def operations(self) -> list[tuple[str, Any]]:
        """The lines of a commit."""
        return [(line["key"], line["value"]) for line in map(json.loads, self.body.splitlines())]

    @property
    def committed(self) -> dict[str, bytes]:
        """The files that a commit brings."""
        return {v["path"]: base64.b64decode(v["content"]) for k, v in self.operations if k == "file"}

    def __str__(self) -> str:
        return f"{self.method} {self.route} #{self.number} → {self.fault or self.status}"
