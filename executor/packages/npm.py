"""Npm: JavaScript packages from the registry, with no script of theirs ever run."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from executor.languages.javascript import node_binary
from executor.packages.client import FetchFailed, Job, Said, environment, run
from executor.packages.report import Ecosystem, Package
from executor.packages.requests import Wanted

_UNREACHABLE = r"code (?:ENOTFOUND|ECONNREFUSED|ECONNRESET|ETIMEDOUT|EAI_AGAIN|ENETUNREACH|EHOSTUNREACH|ERR_SOCKET_\w+)"
_NAME = r"((?:@[a-z0-9~-][\w.~-]*/)?[a-z0-9][\w.~-]*)"


class Npm:
    """Implements `client.Client` with the npm that came with our node."""

    language: Ecosystem = "javascript"

    def ready(self, wanted: Wanted) -> Package | None:
        """Node has no packages of its own."""
        return None

    def own(self, name: str) -> str | None:
        """Nothing, for the same reason."""
        return None

    async def fetch(self, wanted: Sequence[Wanted], job: Job) -> list[Package]:
        """Have npm fill a `node_modules`, which is what goes to the session."""
        prefix = job.stage / "project"
        prefix.mkdir()
        (prefix / "package.json").write_text('{"private": true}')
        env = environment(job, lambda key: key.lower().startswith("npm_config_"))
        job.progress(f"Fetching {', '.join(want.name for want in wanted)}.")
        said = await run(
            [
                *(str(node_binary()), "--max-old-space-size=512", str(_npm()), "install"),
                *("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--no-bin-links"),
                # also what a package needs must come from the registry, and from nowhere else
                *("--allow-git=none", "--allow-remote=none", "--allow-file=none", "--allow-directory=none"),
                *("--git=/bin/false", "--omit=dev", "--no-progress", "--loglevel=error", "--fetch-retries=2"),
                *("--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000"),
                *("--no-update-notifier", "--logs-max=0", "--no-color", "--no-global"),
                *("--prefix", str(prefix), "--cache", str(job.downloads / "npm")),
                *("--", *(want.text for want in wanted)),
            ],
            env=env,
            job=job,
        )
        if said.code != 0:
            raise _explain(said, wanted)
        modules = prefix / "node_modules"
        modules.mkdir(exist_ok=True)
        modules.rename(job.tree)
        return _packages(job.tree, {want.name for want in wanted})


def _npm() -> Path:
    return node_binary().parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"


def _packages(tree: Path, requested: set[str]) -> list[Package]:
    """What npm put there, by its own account."""
    account = tree / ".package-lock.json"
    if not account.exists():
        return []
    found: dict[tuple[str, str], bool] = {}
    for place, about in json.loads(account.read_text())["packages"].items():
        name = place.rpartition("node_modules/")[2]
        top = place.count("node_modules/") == 1
        found.setdefault((name, str(about.get("version", ""))), top and name in requested)
    return [Package(name, version, requested=asked) for (name, version), asked in found.items()]


def _explain(said: Said, wanted: Sequence[Wanted]) -> FetchFailed:
    def blamed(pattern: str) -> list[str]:
        match = said.find(pattern)
        return [want.name for want in wanted if match and match[1].rstrip(".") == want.name]

    if said.find(_UNREACHABLE):
        return FetchFailed("the package registry cannot be reached from the server; try again later")
    if said.find(r"code E404"):
        culprits = blamed(rf"'{_NAME}@[^']*' (?:is not in this registry|could not be found)")
        return FetchFailed("there is no package of that name; check the spelling", culprits=culprits)
    if said.find(r"code ETARGET"):
        return FetchFailed(
            "there is no such version of it", culprits=blamed(rf"No matching version found for {_NAME}@")
        )
    if said.find(r"code ERESOLVE"):
        return FetchFailed("its requirements conflict with those of another package; install it without the other")
    if said.find(r"code EALLOW\w+"):
        return FetchFailed("it needs a package that lies outside of the package registry")
    if said.find(r"code EBADENGINE"):
        return FetchFailed("it does not run on this version of Node")
    if match := said.find(r"code (EINVALIDTAGNAME|EINVALIDPACKAGENAME|EUNSUPPORTEDPROTOCOL)"):
        return FetchFailed("npm does not understand it as a name and version", detail=match[1])
    if re.search(r"heap out of memory", "\n".join(said.lines)):
        return FetchFailed("it needs more packages than can be looked through here")
    return said.unknown("npm")
