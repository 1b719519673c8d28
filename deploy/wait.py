"""Waits until the new build answers, tells how far it is, and stops at once when it can no longer come up."""

from __future__ import annotations

import time
from collections.abc import Callable

from deploy.errors import DeployError, Exit
from deploy.hub import Hub
from deploy.probe import Access, Health, healthz

BROKEN = {"BUILD_ERROR", "CONFIG_ERROR", "NO_APP_FILE", "RUNTIME_ERROR", "DELETING"}
MOVING = {"BUILDING", "RUNNING_BUILDING", "APP_STARTING", "RUNNING_APP_STARTING"}
LOG_EVERY = 10.0
"""Seconds between two looks at the build log."""

TRANSIENT = {Exit.HUB, Exit.TIMEOUT}
"""Faults of the Hub or of the way to it, which say nothing of the build and may pass while it goes on."""

Say = Callable[[str], None]


class BuildFailed(DeployError):
    """The build itself does not come up, so that the one before may be better."""


def wait_for_build(
    hub: Hub, space: str, address: str, access: Access, *, build_id: str, settings: str = "", say: Say
) -> Health:
    """Wait until `/healthz` answers with `build_id` and, where given, `settings`.

    Raises BuildFailed with the end of the log that says why not, and DeployError for what is no fault of the build.
    Faults of the Hub are waited out as long as the build is.

    Right after a commit the Hub may still tell the stage of the build before: a broken stage counts once the Space has
    moved, or after a while; a running one counts only with the right build.
    """
    pace = hub.pace
    begun = time.monotonic()
    moved = False
    former = False
    last_log, log_line, told, blind_since = -LOG_EVERY, "", "", 0.0
    while True:
        elapsed = time.monotonic() - begun
        try:
            stage = str(hub.runtime(space).get("stage") or "")
        except DeployError as error:
            if error.code not in TRANSIENT or elapsed > pace.start_timeout:
                raise
            say(f"no word from the Hub · {elapsed:.0f} s · asking again")
            pace.sleep(pace.poll)
            continue
        moved = moved or stage in MOVING
        if stage in BROKEN and (moved or elapsed > pace.settle):
            raise broken(hub, space, stage)
        if stage == "PAUSED":
            raise DeployError(
                f"{space} is paused: run `python -m deploy restart`, then `python -m deploy wait`.", Exit.PAUSED
            )
        if stage not in BROKEN | MOVING or stage.startswith("RUNNING"):
            health = healthz(address, access)
            former = health.ok and health.build_id == build_id and not health.has(settings)
            if health.ok and health.build_id == build_id and not former:
                say(f"{stage} · {elapsed:.0f} s · build {build_id} answers")
                return health
            if health.status in (401, 403, 404) and stage == "RUNNING":
                blind_since = blind_since or elapsed or 0.001
                if elapsed - blind_since > pace.settle:
                    raise unseen(space, health.status)
            else:
                blind_since = 0.0
        if stage in MOVING and elapsed - last_log >= LOG_EVERY:
            last_log = elapsed
            log_line = (hub.log_tail(space, build=True, lines=1) or [log_line])[0][:100]
        if former:
            log_line = "still with the settings before"
        if (line := f"{stage}{f' · {log_line}' if log_line else ''}") != told:
            told = line
            say(f"{stage or 'no stage yet'} · {elapsed:.0f} s{f' · {log_line}' if log_line else ''}")
        if elapsed > pace.start_timeout and former:
            raise DeployError(
                f"{space} still runs with the settings before, {pace.start_timeout / 60:.0f} minutes after they were "
                "changed. Run `python -m deploy restart`, then `python -m deploy smoke`.",
                Exit.TIMEOUT,
            )
        if elapsed > pace.start_timeout:
            raise BuildFailed(
                f"{space} is at {stage or 'no stage'} and build {build_id} did not answer within "
                f"{pace.start_timeout / 60:.0f} minutes. Look at `python -m deploy logs --build`, then run "
                "`python -m deploy restart --rebuild`.",
                Exit.TIMEOUT,
            )
        pace.sleep(pace.poll)


def broken(hub: Hub, space: str, stage: str) -> BuildFailed:
    """The error for a Space that will not come up, with the end of the log that says why."""
    of_build = stage != "RUNTIME_ERROR"
    tail = hub.log_tail(space, build=of_build)
    what = {
        "BUILD_ERROR": "could not be built",
        "CONFIG_ERROR": "has a front matter that the Hub refuses",
        "NO_APP_FILE": "has no app file",
        "RUNTIME_ERROR": "started and stopped again",
        "DELETING": "is being deleted",
    }[stage]
    end = "\n".join(f"    {line}" for line in tail) or "    (the log is empty)"
    return BuildFailed(
        f"{space} {what} ({stage}). The end of the {'build' if of_build else 'run'} log:\n{end}\n"
        "Correct that and run apply again, or go back with `python -m deploy rollback`.",
        Exit.BUILD,
    )


def unseen(space: str, status: int) -> DeployError:
    """The error for a Space that runs, but does not show itself to our token."""
    return DeployError(
        f"{space} runs, but answers {status} to the token: that is how a private Space looks to whoever may not see "
        "it. Give LIBRECHAT_HF_TOKEN read access to this Space, and if ACCESS_KEY is set there, set it here, too.",
        Exit.WRONG_TOKEN,
    )


def wake(address: str, access: Access, *, timeout: float, sleep: Callable[[float], None], say: Say) -> float:
    """Knock until the Space answers; returns the seconds that it took. Raises DeployError after `timeout` seconds."""
    begun = time.monotonic()
    while True:
        health = healthz(address, access, timeout=30.0)
        elapsed = time.monotonic() - begun
        if health.ok:
            return elapsed
        if elapsed > timeout:
            raise DeployError(
                f"{address} did not answer within {timeout:.0f} s (last: {health.status or health.reason}). "
                "Run `python -m deploy doctor` to learn why.",
                Exit.TIMEOUT,
            )
        say(f"not awake yet · {elapsed:.0f} s · {health.status or health.reason}")
        sleep(2.0)
