"""What is on the Hub now, and the note that we keep there about what we put."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from huggingface_hub import SpaceInfo, Volume

from deploy.hub import Hub
from space.build import NOTE

UNTOUCHED = {".gitattributes", "README.md"}
"""All that a Space has right after it was created."""

SCRYPT_COST = 2**14
"""CPU and memory cost of a fingerprint: 16 MiB and some 50 ms, so that trying many secrets is dear."""

TITLE = "Deploy "
ROLLBACK = "Roll back to "


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What the last apply put, so that only ours is ever removed: salted fingerprints of secrets, never a value of one,
    and names of variables."""

    salt: str
    secrets: Mapping[str, str] = field(default_factory=dict)
    variables: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str | None) -> Self | None:
        """The note from the variable's value, None where there is none that can be read."""
        try:
            data = json.loads(text or "")
            return cls(
                salt=str(data["salt"]),
                secrets={str(k): str(v) for k, v in data["secrets"].items()},
                variables=tuple(str(v) for v in data["variables"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError):
            return None

    def text(self) -> str:
        """The variable's value."""
        return json.dumps(
            {"salt": self.salt, "secrets": dict(sorted(self.secrets.items())), "variables": sorted(self.variables)}
        )


def new_salt() -> str:
    """A salt for the fingerprints of one Space."""
    return secrets.token_hex(16)


def fingerprint(name: str, value: str, salt: str) -> str:
    """A slow salted fingerprint of a secret: tells that it changed, and is no help in guessing a good one."""
    key = hashlib.scrypt(value.encode(), salt=f"{salt}:{name}".encode(), n=SCRYPT_COST, r=8, p=1, dklen=16)
    return key.hex()


def same(one: str, other: str) -> bool:
    """Whether two fingerprints are equal."""
    return hmac.compare_digest(one, other)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The Space as the Hub has it; times are in seconds since 1970, 0 where unknown."""

    exists: bool = False
    private: bool = False
    sdk: str = ""
    head: str = ""
    host: str = ""
    stage: str = ""
    hardware: str = ""
    sleep_time: int | None = None
    volumes: tuple[Volume, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, float] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    titles: tuple[tuple[str, str], ...] = ()
    note: Note | None = None
    note_text: str = ""
    noted_at: float = 0.0

    @property
    def ours(self) -> bool:
        """Whether this Space is one that we made, or is still as empty as on its first day."""
        return self.note is not None or set(self.files) <= UNTOUCHED

    @property
    def build_id(self) -> str:
        """The build that our last commit brought, empty where there is none."""
        return next((build for _, title in self.titles if (build := build_of(title))), "")

    @property
    def foreign_commits(self) -> list[str]:
        """Titles of the commits made by others since our last one."""
        titles: list[str] = []
        for _, title in self.titles:
            if build_of(title):
                return titles
            titles.append(title)
        return []


def build_of(title: str) -> str:
    """The build id in the title of a commit of ours, else empty."""
    for start in (TITLE, ROLLBACK):
        if title.startswith(start):
            return title.removeprefix(start).split()[0] if title.removeprefix(start).strip() else ""
    return ""


def read(hub: Hub, space: str, info: SpaceInfo | None) -> State:
    """Everything about a Space that `info` was just fetched for."""
    if info is None:
        return State()
    variables = hub.variables(space)
    secret_times = hub.secrets(space)
    runtime = hub.runtime(space)
    hardware: dict[str, Any] = runtime.get("hardware") or {}
    raw_volumes = runtime.get("volumes")
    if raw_volumes is None:
        # the runtime does not always carry the volumes, the Space's own page does
        volumes = tuple((info.runtime.volumes if info.runtime else None) or ())
    else:
        volumes = tuple(Volume(**volume) for volume in raw_volumes)
    note_text, noted_at = variables.get(NOTE, ("", 0.0))
    return State(
        exists=True,
        private=info.private is True,
        sdk=str(info.sdk or ""),
        head=str(info.sha or ""),
        host=str(info.host or ""),
        stage=str(runtime.get("stage") or ""),
        hardware=str(hardware.get("requested") or hardware.get("current") or ""),
        sleep_time=runtime.get("gcTimeout"),
        volumes=volumes,
        variables={key: value for key, (value, _) in variables.items() if key != NOTE},
        secrets=secret_times,
        files=hub.tree(space),
        titles=tuple((commit.commit_id, commit.title) for commit in hub.commits(space)),
        note=Note.parse(note_text),
        note_text=note_text,
        noted_at=noted_at,
    )
