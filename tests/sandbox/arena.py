"""Arenas: the places in which attacks are tried, and how one of them is run and judged."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import select
import string
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
_START = 60.0

Language = Literal["python", "javascript", "bash"]


@dataclass(frozen=True, slots=True)
class Attack:
    """One attack: `shows` is how success shows where nothing protects.

    `refused`: with what errors, in its text, a host may refuse it to everybody without privileges. `held`: how it shows
    that ours refused it, and not the host: the kind under which the leader counts it, or "said", where the code itself
    can tell the answers apart and calls `held`.
    """

    id: str
    category: str
    language: Language
    tries: str
    shows: str
    code: str
    refused: tuple[str, ...] = ()
    held: str = ""
    timeout: float = 5.0
    inherits: bool = False
    """The bare host hands its own environment on, as a plain `subprocess.run` does."""


def attacks() -> list[Attack]:
    """All attacks of the data files."""
    found = []
    for file in sorted((HERE / "attacks").glob("*.toml")):
        for entry in tomllib.loads(file.read_text())["attack"]:
            found.append(Attack(category=file.stem, **entry))
    return found


_HOST = ["-m", "tests.sandbox.host"]
_POD = ["-m", "tests.sandbox.pod"]
PLACES: dict[str, list[str]] = {
    "full": _HOST,
    "strong": [*_HOST, "--layers", '{"namespaces": false}'],
    "abi2": [*_HOST, "--layers", '{"namespaces": false, "landlock_abi": 2}'],
    "userns": [*_POD, "--bare", "--", sys.executable, *_HOST],
    "pod": [*_POD, "--", sys.executable, *_HOST],
    # without Landlock files are open: only where what breaks is thrown away
    "weak": [*_POD, "--bare", "--", sys.executable, *_HOST, "--layers", '{"namespaces": false, "landlock": false}'],
    "bare": [*_POD, "--bare", "--", sys.executable, *_HOST, "--bare"],
}
LEVELS = {"full": "full", "strong": "strong", "abi2": "strong", "weak": "weak", "userns": "full", "pod": "strong"}
_TRIALS: dict[str, tuple[list[str], str]] = {
    "full": (["unshare", "-m" if os.geteuid() == 0 else "-Urm", "true"], "namespaces, which this host does not grant"),
    "userns": (
        [sys.executable, *_POD, "--bare", "--", "unshare", "-Urm", "true"],
        "root to make a pod, and user namespaces for everybody in it",
    ),
    "pod": ([sys.executable, *_POD, "--", "true"], "root that may mount, to make a pod"),
    "weak": ([sys.executable, *_POD, "--bare", "--", "true"], "root that may mount, to make a pod"),
    "bare": ([sys.executable, *_POD, "--bare", "--", "true"], "root that may mount, to make a pod"),
}


@functools.cache
def missing(place: str) -> str:
    """What this machine lacks to form a place, found by trying; empty where nothing is missing."""
    if place not in _TRIALS:
        return ""
    command, need = _TRIALS[place]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=_START, check=False)
    except OSError:
        return f"The place {place} needs {command[0]}."
    return f"The place {place} needs {need}." if done.returncode else ""


def places() -> list[Any]:
    """The places for sessions, as parameters: those that this machine cannot form are skipped, and say why."""
    return [place if not missing(place) else unformed(place) for place in LEVELS]


def unformed(place: str, *more: object) -> Any:
    """One skipped case that stands for a place."""
    return pytest.param(place, *more, marks=pytest.mark.skip(reason=missing(place)))


@dataclass(slots=True)
class Outcome:
    """What an attack did: its text, the ways in which it succeeded, and in which it shows that ours refused it."""

    text: str
    status: Any
    seconds: float
    escapes: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)


class Arena:
    """A running host; started again when an attack has ended it."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._process: subprocess.Popen[bytes] | None = None
        self.facts: dict[str, Any] = {}

    def start(self) -> None:
        """Start the host if it does not run."""
        if self._process is not None:
            return
        self._secret = secrets.token_hex(12)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/"),
            "ARENA_SECRET": self._secret,
            "PYTHONPATH": str(ROOT),
        }
        self._process = subprocess.Popen(
            [sys.executable, *PLACES[self.place]], cwd=ROOT, env=environment, stdin=-1, stdout=-1
        )
        self.facts = self._read(_START) or {}
        if not self.facts:
            raise RuntimeError(f"the host of {self.place} did not start")

    def _read(self, seconds: float) -> dict[str, Any] | None:
        assert self._process is not None and self._process.stdout is not None
        fd, text, until = self._process.stdout.fileno(), b"", time.monotonic() + seconds
        while select.select([fd], [], [], max(0.0, until - time.monotonic()))[0]:
            part = os.read(fd, 1 << 20)
            text += part
            if not part or text.endswith(b"\n"):
                break
        try:
            return json.loads(text) if text else None
        except ValueError:
            return None

    def run(
        self, language: str, code: str, *, timeout: float = 5.0, tag: str = "no-such-tag", inherits: bool = False
    ) -> Outcome:
        """Run code and judge it by its text, its traces and what is left of it."""
        self.start()
        assert self._process is not None and self._process.stdin is not None
        request = {"language": language, "code": code, "timeout": timeout, "tag": tag, "inherits": inherits}
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        answer = self._read(timeout + 20)
        if answer is None:
            self.close()
            return Outcome("", "gone", 0.0, ["harm: the server died or hung"])
        outcome = Outcome(answer["text"], answer["status"], answer["seconds"], held=answer.get("denials", []))
        if "HELD" in answer["text"]:
            outcome.held.append("said")
        if "ESCAPED" in answer["text"]:
            outcome.escapes.append("marker")
        if any(secret in answer["text"] for secret in self.facts["secrets"] if secret):
            outcome.escapes.append("secret")
        outcome.escapes += [f"harm: {harm}" for harm in answer["harm"]]
        if answer["survivors"]:
            outcome.escapes.append("survivor")
        if answer["harm"] and self.place == "bare":
            self.close()  # the next attack wants an unharmed victim
        return outcome

    def attack(self, attack: Attack) -> Outcome:
        """Run one attack."""
        self.start()
        tag = f"tag-{secrets.token_hex(6)}"
        prelude = HERE / "attacks" / f"prelude.{attack.language}"
        names = {**{name: str(value) for name, value in self.facts.items()}, "tag": tag}
        code = _Template(prelude.read_text() + attack.code).substitute(names)
        return self.run(attack.language, code, timeout=attack.timeout, tag=tag, inherits=attack.inherits)

    def close(self) -> None:
        """Hang up; the host ends by itself."""
        if self._process is None:
            return
        process, self._process = self._process, None
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.close()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


class _Template(string.Template):
    """`@name@`-like placeholders are rare in code; `@{name}` never occurs in any of the three languages."""

    delimiter = "@"
    pattern = r"""
    @(?:(?P<escaped>@@)|(?P<named>(?!))|\{(?P<braced>[a-z_]+)\}|(?P<invalid>(?!)))
    """
