"""What installing packages gave: plain data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Ecosystem = Literal["python", "javascript"]
"""The languages that packages can be installed for."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package and its version; `requested` as against one that came along; `replaced` is the version before."""

    name: str
    version: str
    requested: bool = False
    replaced: str | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request as it was written, and the sentence that says why nothing came of it."""

    request: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageReport:
    """The outcome of one call. `present` were there before; `size` is in bytes, of all that the session has installed
    for the language, unpacked; `seconds` is what the call took. `notices` are sentences for the reader."""

    session_id: str
    language: Ecosystem
    installed: tuple[Package, ...] = ()
    present: tuple[Package, ...] = ()
    refused: tuple[Refusal, ...] = ()
    seconds: float = 0.0
    size: int = 0
    notices: tuple[str, ...] = ()

    @property
    def success(self) -> bool:
        """Whether all that was asked for can be imported now."""
        return not self.refused

    def to_json(self) -> dict[str, Any]:
        """The report as JSON data."""
        return {"success": self.success, **asdict(self)}
