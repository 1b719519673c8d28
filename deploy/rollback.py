"""Brings back the files of the deploy before: one new commit, since history on the Hub is never rewritten."""

from __future__ import annotations

from dataclasses import dataclass

from deploy.apply import Say, verified_private
from deploy.config import address_of
from deploy.errors import DeployError, Exit
from deploy.hub import Hub
from deploy.plan import IGNORED
from deploy.state import ROLLBACK, build_of


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """The build that is to run again, and where."""

    space: str
    address: str
    build_id: str
    head: str


def rollback(hub: Hub, space: str, *, to: str = "", say: Say) -> RolledBack:
    """Bring back build `to` (first digits do), else the newest one that differs from what is there now.

    Secrets, variables and hardware stay as they are: the Hub keeps no history of them.
    """
    info = verified_private(hub, space)
    commits = [(c.commit_id, build_of(c.title)) for c in hub.commits(space)]
    builds = [(oid, build) for oid, build in commits if build]
    now = commits[0][1] if commits else ""
    wanted = [(oid, b) for oid, b in builds if (b.startswith(to) if to else b != now)]
    if not wanted:
        known = ", ".join(dict.fromkeys(b for _, b in builds)) or "none"
        raise DeployError(
            f"{space} has no {'build ' + to if to else 'earlier build'} to go back to. Builds in its history: {known}. "
            "Deploy the version that you want with apply instead.",
            Exit.USAGE,
        )
    oid, build = wanted[0]
    then, here = hub.tree(space, oid), hub.tree(space)
    copy = {path: oid for path, name in then.items() if here.get(path) != name and path not in IGNORED}
    delete = [path for path in here if path not in then and path not in IGNORED]
    head = str(info.sha or "")
    if copy or delete:
        say(f"Rolling back to build {build}: {len(copy)} files back, {len(delete)} removed, in one commit")
        head = hub.commit(
            space,
            title=f"{ROLLBACK}{build}",
            parent=head,
            copy=copy,
            delete=delete,
            wanted={path: name for path, name in then.items() if path not in IGNORED},
        )
    else:
        say(f"The files are those of build {build} already")
    info = verified_private(hub, space)
    return RolledBack(space=space, address=address_of(info.host, hub.endpoint, space), build_id=build, head=head)
