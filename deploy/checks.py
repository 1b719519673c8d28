"""What the smoke test found, one check at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

SANDBOX = ": sandbox"
"""How the name of the check of the sandbox ends, after the transport."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing tried: whether it worked, what was seen, and the seconds that it took."""

    name: str
    ok: bool
    detail: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        seen = f": {self.detail}" if self.detail else ""
        return f"{'ok  ' if self.ok else 'FAIL'} {self.name} ({self.seconds:.2f} s){seen}"


@dataclass(slots=True)
class Report:
    """The checks in their order; `level` is how well the sandbox holds, as the Space itself says."""

    checks: list[Check] = field(default_factory=list)
    level: str = ""

    @property
    def ok(self) -> bool:
        """Whether everything worked."""
        return all(check.ok for check in self.checks)

    @property
    def only_weak(self) -> bool:
        """Whether a weak sandbox is all that is wrong."""
        return self.level == "weak" and not self.ok and all(c.ok or c.name.endswith(SANDBOX) for c in self.checks)
