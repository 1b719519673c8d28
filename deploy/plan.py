"""The difference between what is wanted and what is there: what apply would do, and what others changed meanwhile."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from huggingface_hub import Volume

from deploy.bundle import Bundle
from deploy.config import Storage, Target
from deploy.errors import DeployError, Exit
from deploy.state import State, fingerprint, same

Kind = Literal["space", "visibility", "hardware", "sleep time", "volume", "variable", "secret", "file"]
SIGNS = {"add": "+", "change": "~", "remove": "-"}
IGNORED = {".gitattributes"}
"""Files that are the Hub's own and stay."""


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that apply would do."""

    kind: Kind
    name: str
    action: Literal["add", "change", "remove"]
    detail: str = ""

    def __str__(self) -> str:
        return f"{SIGNS[self.action]} {self.kind} {self.name}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What apply would do, in its order, and sentences about what differs without being ours to change."""

    changes: tuple[Change, ...]
    drift: tuple[str, ...] = field(default=())

    def of(self, *kinds: Kind) -> list[Change]:
        """The changes of some kinds."""
        return [change for change in self.changes if change.kind in kinds]

    @property
    def new_build(self) -> bool:
        """Whether files change, so that the Space is built anew."""
        return bool(self.of("file"))

    @property
    def restarts(self) -> bool:
        """Whether a running Space starts again, be it only for a variable."""
        return bool(self.changes)


def refuse_strangers(state: State, space: str, *, adopt: bool, make_private: bool) -> None:
    """Stop before touching a Space that is public, or that somebody else filled."""
    if not state.exists:
        return
    if not state.private and not (make_private or state.note is not None):
        raise DeployError(
            f"{space} is taken by a Space that is public. Nothing was sent there. Choose another name with `--space`, "
            "or pass --make-private if it is yours and is meant to become this one.",
            Exit.NAME,
        )
    if not state.ours and not adopt:
        raise DeployError(
            f"{space} exists and has files that this tool did not put there. Choose another name with `--space`, or "
            "pass --adopt to replace them.",
            Exit.NAME,
        )
    if state.sdk not in ("", "gradio"):
        raise DeployError(
            f"{space} is a Space of the kind {state.sdk!r}, not gradio. Choose another name with `--space`.", Exit.NAME
        )


def make_plan(target: Target, bundle: Bundle, state: State) -> Plan:
    """Compare. Secrets are compared by fingerprint, and by whether they were touched after our last apply."""
    changes: list[Change] = []
    drift: list[str] = []
    note = state.note
    if not state.exists:
        changes.append(Change("space", target.space, "add", f"private, on {target.hardware}"))
    elif not state.private:
        changes.append(Change("visibility", "private", "change", "it is public"))
        drift.append("The Space is public: somebody changed its visibility.")
    if state.exists and state.hardware and state.hardware != target.hardware:
        changes.append(Change("hardware", target.hardware, "change", f"is {state.hardware}"))
    if target.sleep_time is not None and state.sleep_time != target.sleep_time:
        changes.append(Change("sleep time", f"{target.sleep_time} s", "change", f"is {state.sleep_time}"))
    if target.volume is not None and not any(_same_volume(target.volume, v) for v in state.volumes):
        changes.append(Change("volume", target.volume.mount_path, "add", target.volume.source))
    drift += [
        f"The volume {v.source} at {v.mount_path} is attached and not asked for; it stays until you detach it."
        for v in state.volumes
        if target.volume is None or v.mount_path != target.volume.mount_path
    ]
    for name, value in sorted(target.secrets.items()):
        known = note.secrets.get(name) if note else None
        if name not in state.secrets:
            changes.append(Change("secret", name, "add"))
        elif known is None or note is None or not same(known, fingerprint(name, value, note.salt)):
            changes.append(Change("secret", name, "change"))
        elif state.secrets[name] > state.noted_at > 0:
            drift.append(f"The secret {name} was changed after the last apply.")
            changes.append(Change("secret", name, "change", "changed by somebody else"))
    for name in sorted(set(state.secrets) - set(target.secrets)):
        if note and name in note.secrets:
            changes.append(Change("secret", name, "remove"))
        else:
            drift.append(f"The secret {name} was added by somebody else; it stays.")
    for name, value in sorted(target.variables.items()):
        if name not in state.variables:
            changes.append(Change("variable", name, "add", value))
        elif state.variables[name] != value:
            changes.append(Change("variable", name, "change", f"{state.variables[name]} → {value}"))
    for name in sorted(set(state.variables) - set(target.variables)):
        if note and name in note.variables:
            changes.append(Change("variable", name, "remove"))
        else:
            drift.append(f"The variable {name} was added by somebody else; it stays.")
    for path, oid in bundle.oids.items():
        if path not in state.files:
            changes.append(Change("file", path, "add"))
        elif state.files[path] != oid:
            changes.append(Change("file", path, "change"))
    changes += [Change("file", path, "remove") for path in sorted(set(state.files) - set(bundle.files) - IGNORED)]
    if foreign := state.foreign_commits:
        drift.append(f"{len(foreign)} commits were not made by this tool, the newest is {foreign[0]!r}; see history.")
    return Plan(tuple(changes), tuple(drift))


def volumes_wanted(target: Target, state: State) -> list[Volume]:
    """The volumes to set: those that are there, ours in place of what is mounted at the same path."""
    if target.volume is None:
        return list(state.volumes)
    kept = [v for v in state.volumes if v.mount_path != target.volume.mount_path]
    ours = Volume(
        type="bucket",
        source=target.volume.source,
        mount_path=target.volume.mount_path,
        read_only=target.volume.read_only,
    )
    return [*kept, ours]


def _same_volume(wanted: Storage, there: Volume) -> bool:
    return (wanted.source, wanted.mount_path, wanted.read_only) == (
        there.source,
        there.mount_path,
        bool(there.read_only),
    )
