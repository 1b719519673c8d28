"""Looks at a live Space and explains what is wrong, one finding at a time, with an exit code for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from deploy.config import Target, address_of
from deploy.errors import DeployError, Exit
from deploy.hub import Hub
from deploy.probe import Access, healthz
from deploy.smoke import Smoke
from deploy.state import build_of
from deploy.wait import BROKEN, MOVING, broken

UNTRIED = (
    "which Python and packages the builder really installed (see `logs --build`)",
    "whether the app is run or imported there (it works both ways)",
    "how long the proxy leaves an idle SSE stream open (the app sends something every 15 s)",
    "whether a scrape or a `wake` counts as a visit that keeps the Space from sleeping",
)
"""What only the real platform can show; `doctor` asks for a look at it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong and what to do, or Exit.OK and what is right."""

    code: Exit
    sentence: str


def examine(
    hub: Hub, target: Target, access: Access, *, own_token: bool, build_id: str, say: Callable[[str], None]
) -> Finding:
    """The first thing that is wrong, from the outside in; runs the smoke test where nothing is in its way.

    `own_token` says whether `access` carries the read-only token, as against the one that deploys; `build_id` is the
    build of the tree at hand, empty to accept any.
    """
    space = target.space
    info = hub.info(space)
    if info is None:
        return Finding(
            Exit.MISSING, f"There is no Space {space} that the token may see. Check owner and name, or run apply."
        )
    if info.private is not True:
        return Finding(
            Exit.PUBLIC, f"{space} is public: anybody can run code on it. Run apply, which makes it private, at once."
        )
    runtime = hub.runtime(space)
    stage = str(runtime.get("stage") or "")
    hardware = (runtime.get("hardware") or {}).get("requested") or (runtime.get("hardware") or {}).get("current")
    say(f"{space}: private, {stage or 'no stage'}, on {hardware or 'no hardware yet'}")
    if stage in ("PAUSED", "STOPPED"):
        return Finding(Exit.PAUSED, f"{space} is {stage.lower()}. Run `python -m deploy restart`.")
    if stage == "SLEEPING":
        return Finding(
            Exit.SLEEPING,
            f"{space} is asleep. Run `python -m deploy wake`: LibreChat gives up after about 15 s and then refuses for "
            "up to 5 minutes. `wake --every 43200` keeps it awake.",
        )
    if stage in MOVING and not stage.startswith("RUNNING"):
        return Finding(Exit.BUILDING, f"{space} is being built ({stage}). Run `python -m deploy wait`.")
    if stage in BROKEN:
        tail = "\n".join(hub.log_tail(space, build=stage != "RUNTIME_ERROR"))
        if "GPU function detected" in tail or "requires a PRO" in tail:
            return Finding(
                Exit.WRONG_PLAN,
                f"{space} was stopped because its hardware and its files do not fit together: set `hardware` in "
                f"deploy.toml to what the Space has ({hardware}) and run apply.\n{tail}",
            )
        return Finding(Exit.BUILD, str(broken(hub, space, stage)))
    if hardware and hardware != target.hardware:
        say(f"note: it runs on {hardware}, deploy.toml says {target.hardware}; the next apply changes that")
    address = address_of(info.host, hub.endpoint, space)
    health = healthz(address, access)
    if health.status in (401, 403, 404):
        whose = "LIBRECHAT_HF_TOKEN" if own_token else "the deploy token"
        return Finding(
            Exit.WRONG_TOKEN,
            f"{space} runs, but answers {health.status} to {whose}. Give that token read access to this Space; if "
            "ACCESS_KEY is set there, set it in the environment here, too.",
        )
    if not health.ok:
        return Finding(
            Exit.FAILED,
            f"{address}/healthz answers {health.status or health.reason}. See `python -m deploy logs`, then restart.",
        )
    deployed = next((b for commit in hub.commits(space) if (b := build_of(commit.title))), "")
    if deployed and health.build_id != deployed:
        return Finding(
            Exit.OLD_BUILD,
            f"Build {health.build_id or 'unknown'} answers, but the files are those of {deployed}. Run "
            "`python -m deploy restart --rebuild`.",
        )
    if build_id and health.build_id != build_id:
        say(f"note: the tree at hand is build {build_id}, the Space runs {health.build_id}; apply brings it up to date")
    smoke = Smoke(
        address,
        access,
        build_id=health.build_id,
        say=say,
        allow_weak=target.settings.allow_weak_sandbox,
        offered=target.settings.tools,
    )
    report = asyncio.run(smoke.run())
    if report.only_weak:
        return Finding(
            Exit.WEAK_SANDBOX,
            "The kernel there cannot hold hostile code (see the sandbox line). Use the Space for trusted users only, "
            "with ALLOW_WEAK_SANDBOX=1, or try other hardware.",
        )
    if not report.ok:
        failed = [check.name for check in report.checks if not check.ok]
        return Finding(Exit.SMOKE, f"Failed: {'; '.join(failed)}. See the lines above and `python -m deploy logs`.")
    return Finding(Exit.OK, f"{space} is well, build {health.build_id}.")


def as_error(finding: Finding) -> DeployError | None:
    """The finding as an error, None where all is well."""
    return None if finding.code is Exit.OK else DeployError(finding.sentence, finding.code)
