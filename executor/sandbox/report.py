"""How well this host holds hostile code: the level reached, and what each layer of it does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

Level = Literal["full", "strong", "weak"]
LEVELS: tuple[Level, ...] = get_args(Level)
"""`full`: namespaces, Landlock and seccomp; `strong`: Landlock and seccomp; `weak`: no Landlock, whatever else."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: whether it holds here, and a sentence that says what it does or why it is missing."""

    on: bool
    why: str


@dataclass(frozen=True, slots=True)
class SandboxReport:
    """What the probe found, by trying; `layers` in the order in which a reader should see them."""

    level: Level
    layers: dict[str, Layer] = field(default_factory=dict)

    def missing(self) -> list[str]:
        """A sentence for each layer that is off."""
        return [f"{name}: {layer.why}" for name, layer in self.layers.items() if not layer.on]

    def to_json(self) -> dict[str, Any]:
        """The report as JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The report again, from `to_json`."""
        return cls(data["level"], {name: Layer(**layer) for name, layer in data["layers"].items()})
