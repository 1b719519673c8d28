"""A Space as the Hub keeps it: commits, settings, and the stages it goes through after a change."""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

BUILD = ["BUILDING", "BUILDING", "APP_STARTING", "RUNNING"]
RESTART = ["RUNNING_APP_STARTING", "RUNNING"]


def oid_of(content: bytes) -> str:
    """A git blob's name."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def stamp() -> str:
    """Now, as the Hub writes it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class Commit:
    """One commit with all files of its tree."""

    title: str
    files: dict[str, bytes]
    date: str = field(default_factory=stamp)
    oid: str = ""

    def __post_init__(self) -> None:
        self.oid = hashlib.sha1(f"{self.title}{self.date}{sorted(self.files.items())}".encode()).hexdigest()


@dataclass(slots=True)
class LocalSpace:
    """One Space. `stages` are what the runtime tells next, the last one for good; `host` is where it is reached."""

    id: str
    sdk: str
    private: bool
    host: str
    hardware: str = "cpu-basic"
    sleep_time: int | None = None
    volumes: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    stages: deque[str] = field(default_factory=lambda: deque(["NO_APP_FILE"]))
    build_script: list[str] = field(default_factory=lambda: list(BUILD))
    build_log: list[str] = field(default_factory=lambda: ["Collecting gradio", "Successfully installed everything"])
    run_log: list[str] = field(default_factory=lambda: ["Running on http://0.0.0.0:7860"])
    running: Commit | None = None
    moving: bool = False
    pending: Commit | None = None
    note: str = ""
    """The value of DEPLOY_STATE that the running process was started with."""

    def __post_init__(self) -> None:
        if not self.commits:
            self.commits.append(
                Commit("initial commit", {".gitattributes": b"", "README.md": b"---\nsdk: gradio\n---"})
            )

    @property
    def head(self) -> Commit:
        """The newest commit."""
        return self.commits[-1]

    @property
    def files(self) -> dict[str, bytes]:
        """The files of the newest commit."""
        return self.head.files

    def commit(self, title: str, files: dict[str, bytes]) -> Commit:
        """Add a commit and start a build, unless the Space is paused."""
        self.commits.append(Commit(title, files))
        self.pending, self.moving = self.head, False
        if self.stages[0] != "PAUSED":
            self.stages = deque(self.build_script if "app.py" in files else ["NO_APP_FILE"])
        return self.head

    def restarted(self) -> None:
        """A change of the environment restarts what runs, and nothing where nothing runs."""
        if self.stages[0] in ("RUNNING", "SLEEPING"):
            self.stages = deque(RESTART)

    def stage(self) -> str:
        """The stage now; each look brings it one further."""
        stage = self.stages[0] if len(self.stages) == 1 else self.stages.popleft()
        self.moving = self.moving or stage in ("BUILDING", "APP_STARTING", "RUNNING_APP_STARTING")
        if stage == "RUNNING" and self.moving:
            self.moving = False
            self.note = self.variables.get("DEPLOY_STATE", {}).get("value", "")
            if self.pending is not None:
                self.running, self.pending = self.pending, None
        return stage

    def runtime(self) -> dict[str, Any]:
        """The runtime as the API gives it."""
        return {
            "stage": self.stage(),
            "hardware": {"current": self.hardware, "requested": self.hardware},
            "storage": None,
            "gcTimeout": self.sleep_time,
            "volumes": self.volumes,
            "replicas": {"requested": 1},
        }
