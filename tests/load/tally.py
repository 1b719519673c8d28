"""Tally: what happened in a run, how long it took, and whether the script is to blame for what went wrong."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.load.server import Sample

KEPT_COMPLAINTS = 20
ALONE = "short, alone"
"""With the pauses of all other clients."""
WOKEN = "short, woken"
"""Those of the short cells under load that found their session parked."""
IN_A_ROW = "short, row"
"""The kind of those short cells that one client ran before the others came."""


@dataclass(slots=True)
class Tally:
    """Counts and times. `expected` are errors that the script asked for or that a busy server may give; everything in
    `complaints` is something that must not be."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    expected: Counter[str] = field(default_factory=Counter)
    wrong: int = 0
    unexpected: int = 0
    twice: int = 0
    stale: int = 0
    silent: int = 0
    restored: int = 0
    kills: int = 0
    rolled_back: list[int] = field(default_factory=list)
    """Of restores after a kill: how many cells each one went back."""
    complaints: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def took(self, kind: str, seconds: float) -> None:
        """A cell of that kind was answered as it should be."""
        self.seconds[kind].append(seconds)

    def complain(self, what: str, sentence: str) -> None:
        """`what` is the counter: wrong, unexpected, twice, stale or silent."""
        setattr(self, what, getattr(self, what) + 1)
        if len(self.complaints) < KEPT_COMPLAINTS:
            self.complaints.append(f"{what}: {sentence}"[:600])

    @property
    def failed(self) -> bool:
        """Whether anything went wrong that the script did not cause."""
        return bool(self.wrong or self.unexpected or self.twice or self.stale or self.silent) or not self.seconds

    def figures(self) -> dict[str, Any]:
        """Everything as plain data."""
        return {
            "cells": {kind: quantiles(times) for kind, times in sorted(self.seconds.items())},
            "expected errors": dict(self.expected),
            **{name: getattr(self, name) for name in ("wrong", "unexpected", "twice", "stale", "silent")},
            "sessions restored": self.restored,
            "kills": self.kills,
            "cells lost in kills, each": self.rolled_back,
            "complaints": self.complaints,
            "memory": [asdict(sample) for sample in self.samples],
            **self.facts,
        }

    def report(self) -> str:
        """For a person."""
        lines = [f"{'':14}{'count':>8}{'p50 ms':>10}{'p95 ms':>10}{'p99 ms':>10}{'max ms':>10}"]
        for kind, times in sorted(self.seconds.items()):
            row = quantiles(times)
            lines.append(
                f"{kind:14}{row['count']:8.0f}" + "".join(f"{row[q]:10.1f}" for q in ("p50", "p95", "p99", "max"))
            )
        if self.seconds.get(ALONE) and self.seconds.get("short"):
            p99 = quantiles(self.seconds["short"])["p99"]
            paced, row = (p99 / quantiles(self.seconds[kind])["p50"] for kind in (ALONE, IN_A_ROW))
            lines.append(f"p99 of short cells: {paced:.1f} times their p50 alone, {row:.1f} times that without pauses")
        lines.append("")
        lines.append("expected errors: " + (", ".join(f"{n} {k}" for k, n in sorted(self.expected.items())) or "none"))
        lines.append(
            f"wrong answers {self.wrong}, unexpected errors {self.unexpected}, cells run twice {self.twice}, "
            f"values too old {self.stale}, silent losses {self.silent}"
        )
        lines.append(f"sessions restored {self.restored}, kills {self.kills}, cells lost in each {self.rolled_back}")
        if self.samples:
            lines.append("")
            lines.append(f"{'PSS, MiB':14}{'server':>8}{'children':>10}{'all':>8}{'processes':>11}{'descriptors':>13}")
            first, last = self.samples[0], self.samples[-1]
            most = max(self.samples, key=lambda sample: sample.all_mib)
            for name, one in (("start", first), ("most", most), ("end", last)):
                lines.append(
                    f"{name:14}{one.server_mib:8.0f}{one.children_mib:10.0f}{one.all_mib:8.0f}"
                    f"{one.processes:11}{one.descriptors:13}"
                )
            lines.append(
                f"memory at the end against the start: server {_more(last.server_mib, first.server_mib)}, "
                f"all {_more(last.all_mib, first.all_mib)}"
            )
        lines += [f"{name}: {value}" for name, value in self.facts.items()]
        lines += ["", *self.complaints] if self.complaints else []
        return "\n".join(lines)


def _more(after: float, before: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %"


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Count, and p50, p95, p99 and maximum in milliseconds; the value at or above each rank."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {"count": len(ordered), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "max": 1000 * ordered[-1]}
