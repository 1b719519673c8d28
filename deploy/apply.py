"""Bring the Space to what is wanted, in the order that never shows a secret to anybody and wastes no restart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from huggingface_hub import SpaceInfo

from deploy.bundle import Bundle
from deploy.config import Target, address_of
from deploy.errors import DeployError, Exit
from deploy.hub import Hub
from deploy.plan import Plan, make_plan, refuse_strangers, volumes_wanted
from deploy.state import TITLE, Note, State, fingerprint, new_salt, read
from space.build import NOTE, settings_id

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What apply did: where, the build and the settings (as `/healthz` names them) that are to run there now, the build
    before (empty for none), and the changes."""

    space: str
    address: str
    build_id: str
    settings: str
    former_build: str
    head: str
    plan: Plan


def survey(hub: Hub, target: Target, bundle: Bundle) -> tuple[State, Plan]:
    """Look, and change nothing; `target.space` must have its owner."""
    state = read(hub, target.space, hub.info(target.space))
    return state, make_plan(target, bundle, state)


def apply(
    hub: Hub, target: Target, bundle: Bundle, *, say: Say, adopt: bool = False, make_private: bool = False
) -> Applied:
    """Create or update the Space. Every step may be repeated: after any stop, the next apply completes it.

    The order is the point: create private and empty, verify that it is private, then secrets and variables while
    nothing runs, then the files in one commit, and private again at the end.
    """
    space = target.space
    info = hub.info(space)
    if info is None:
        say(f"Creating {space}, private and empty, on {target.hardware}")
        hub.create(space)
    elif info.private is not True:
        refuse_strangers(read(hub, space, info), space, adopt=adopt, make_private=make_private)
        say(f"Making {space} private")
        hub.make_private(space)
    info = verified_private(hub, space, applying=True)
    state = read(hub, space, info)
    refuse_strangers(state, space, adopt=adopt, make_private=make_private)
    plan = make_plan(target, bundle, state)
    for change in plan.changes:
        if change.kind != "file":
            say(f"  {change}")
    _runtime(hub, target, state, plan)
    note = _environment(hub, target, state, plan)
    head = state.head
    if files := plan.of("file"):
        say(f"Uploading {sum(c.action != 'remove' for c in files)} files in one commit, build {bundle.build_id}")
        # once more: minutes may have passed, and code is as private as secrets are
        verified_private(hub, space, applying=True)
        head = hub.commit(
            space,
            title=f"{TITLE}{bundle.build_id}",
            parent=state.head,
            add={c.name: bundle.files[c.name] for c in files if c.action != "remove"},
            delete=[c.name for c in files if c.action == "remove"],
            wanted=bundle.oids,
        )
    info = verified_private(hub, space, applying=True)
    return Applied(
        space=space,
        address=address_of(info.host, hub.endpoint, space),
        build_id=bundle.build_id,
        settings=settings_id(note),
        former_build=state.build_id,
        head=head,
        plan=plan,
    )


def verified_private(hub: Hub, space: str, *, applying: bool = False) -> SpaceInfo:
    """The Space, asked for just now, and private beyond doubt. Raises DeployError otherwise.

    `applying` says that this run has seen or made it already.
    """
    info = hub.info(space)
    if info is None and not applying:
        raise DeployError(
            f"There is no Space {space} that this token may see. Check owner and name, or run apply, which makes it.",
            Exit.MISSING,
        )
    if info is None:
        raise DeployError(
            f"The Hub does not show {space}, though it was just there. Check in the browser that the token's account "
            "may see it, then run apply again. Nothing secret was sent.",
            Exit.NAME,
        )
    if info.private is not True:
        raise DeployError(
            f"{space} is not private. Nothing more was sent. Set it to private in its settings, or delete it, and run "
            "apply again.",
            Exit.NAME,
        )
    return info


def _runtime(hub: Hub, target: Target, state: State, plan: Plan) -> None:
    if plan.of("hardware"):
        hub.set_hardware(target.space, target.hardware)
    if plan.of("sleep time") and target.sleep_time is not None:
        hub.set_sleep_time(target.space, target.sleep_time)
    if plan.of("volume"):
        hub.set_volumes(target.space, volumes_wanted(target, state))


def _environment(hub: Hub, target: Target, state: State, plan: Plan) -> str:
    """Secrets and variables that differ, and last the note about them: written early it could claim what never came.

    Returns the note. It is new, too, where hardware or volume changed: the process that has it began after them.
    """
    changes = plan.of("secret", "variable")
    for change in changes:
        match change.kind, change.action:
            case "secret", "remove":
                hub.delete_secret(target.space, change.name)
            case "secret", _:
                hub.set_secret(target.space, change.name, target.secrets[change.name])
            case _, "remove":
                hub.delete_variable(target.space, change.name)
            case _:
                hub.set_variable(target.space, change.name, target.variables[change.name])
    note = state.note
    known = note is not None and (set(note.secrets), set(note.variables)) == (
        set(target.secrets),
        set(target.variables),
    )
    if not known or plan.of("secret", "variable", "hardware", "volume"):
        # a fresh salt each time: the note then always changes, and with it the time that drift is measured against
        salt = new_salt()
        fresh = Note(
            salt=salt,
            secrets={name: fingerprint(name, value, salt) for name, value in target.secrets.items()},
            variables=tuple(target.variables),
        )
        hub.set_variable(target.space, NOTE, fresh.text())
        return fresh.text()
    return state.note_text
