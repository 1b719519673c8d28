"""Cell: the one execution that a leader has under way, and what it has given so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from executor.local import wire
from executor.local.stream import Stream
from executor.results import Language, Status
from executor.sandbox.notifier import explain
from executor.sandbox.syscalls import Kind

MAX_DISPLAY = 6 * 2**20
"""Bytes that the displayed values kept of one execution may take in a frame, so that its report fits one with room to
spare. A character outside ASCII takes six, one outside the basic plane twelve."""

MAX_NESTING = wire.MAX_DEPTH - 8
"""Levels of a displayed value: what is around it in a frame nests, too."""

StopReason = Literal["timeout", "interrupted", "memory", "disk"]


@dataclass(slots=True, kw_only=True)
class Cell:
    """Times are of the monotonic clock, in seconds."""

    id: str
    language: Language
    code: str
    number: int
    timeout: float
    stdout: Stream
    stderr: Stream
    started: float = field(default_factory=time.monotonic)
    sent: bool = False
    outputs: list[dict[str, Any]] = field(default_factory=list)
    display_size: int = 0
    outputs_dropped: int = 0
    notices: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    variables: Sequence[Mapping[str, Any]] = ()
    unshown: list[tuple[str, str]] = field(default_factory=list)
    streaming: bool = False
    stop: StopReason | None = None
    hard_at: float | None = None
    replaced: str | None = None

    @property
    def deadline(self) -> float:
        """When the cell must be asked to stop."""
        return self.started + self.timeout

    def feed(self, stream: str, data: bytes) -> None:
        """Take printed bytes."""
        if text := (self.stdout if stream == "stdout" else self.stderr).feed(data):
            self.unshown.append((stream, text))

    def display(self, output: dict[str, Any], *, limit: int) -> bool:
        """Keep a displayed value; False where it is one too many or too big."""
        if wire.deeper_than(output["data"], MAX_NESTING):
            output["data"] = {mime: value for mime, value in output["data"].items() if isinstance(value, str)}
            notice = f"A displayed value nests over {MAX_NESTING} levels deep; only its text was kept."
            if notice not in self.notices:
                self.notices.append(notice)
        if len(self.outputs) >= limit:
            self.outputs_dropped += 1
            return False
        size = wire.size_of(output)
        if self.display_size + size > MAX_DISPLAY:
            self.outputs_dropped += 1
            return False
        self.display_size += size
        self.outputs.append(output)
        return True

    def report(
        self,
        *,
        status: Status,
        return_code: int | None,
        error: Mapping[str, Any] | None,
        files: list[dict[str, Any]],
        refused: list[Kind],
    ) -> dict[str, Any]:
        """The execution's result as `executor.local.report` reads it."""
        stdout, stderr = self.stdout.finish(), self.stderr.finish()
        truncated = self.stdout.truncated or self.stderr.truncated or self.outputs_dropped > 0
        if self.outputs_dropped:
            self.notices.append(
                f"{self.outputs_dropped} further displayed values were dropped: they were too many or too big."
            )
        return {
            "status": status,
            "execution_id": self.id,
            "language": self.language,
            "stdout": stdout,
            "stderr": stderr,
            "return_code": return_code,
            "execution_time": round(time.monotonic() - self.started, 6),
            "outputs": self.outputs,
            "files": files,
            "error": error,
            "violations": [
                {"rule": kind, "message": explain(kind), "line": 1, "column": 1, "layer": "sandbox"} for kind in refused
            ],
            "truncated": truncated,
            "notices": self.notices,
            "variables": list(self.variables),
        }
