"""Shelf: what a session has installed for one language. It is kept with the session, in its snapshots, too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from executor.packages.report import Ecosystem, Package
from executor.packages.requests import Unusable, Wanted, parse


@dataclass(slots=True)
class Shelf:
    """The requests by name, and what came of them."""

    wanted: dict[str, Wanted] = field(default_factory=dict)
    packages: set[tuple[str, str]] = field(default_factory=set)
    """(name, version); in JavaScript a package may be there in several versions, each for another one's use."""

    def lacks(self, package: Package) -> bool:
        """Whether that version of it is not there."""
        return (package.name, package.version) not in self.packages

    def replaced_by(self, package: Package) -> str:
        """The versions whose place it takes; empty where there are none."""
        return ", ".join(
            sorted(version for name, version in self.packages if name == package.name and self.lacks(package))
        )

    def to_json(self) -> dict[str, Any]:
        """The shelf as JSON data."""
        return {
            "wanted": [want.text for want in self.wanted.values()],
            "packages": [list(package) for package in sorted(self.packages)],
        }

    @classmethod
    def from_json(cls, language: Ecosystem, data: Mapping[str, Any]) -> Self:
        """The shelf again, from `to_json`. Raises ValueError, KeyError or TypeError where it is none."""
        try:
            wanted = [parse(text, language) for text in data["wanted"]]
        except Unusable as error:
            raise ValueError(str(error)) from None
        return cls(
            {want.name: want for want in wanted}, {(str(name), str(version)) for name, version in data["packages"]}
        )
