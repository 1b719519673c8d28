"""The commands of `python -m deploy`, a function each: what it does is its docstring, and its help."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from deploy import doctor as doctors
from deploy.apply import Applied, apply, survey, verified_private
from deploy.bundle import PROJECT, collect
from deploy.config import address_of, is_loopback
from deploy.context import Context, say, warn
from deploy.errors import DeployError, Exit
from deploy.hardware import about
from deploy.librechat import blocks, write_override
from deploy.probe import Access
from deploy.requirements import platform_packages, resolve, sdk_version
from deploy.rollback import rollback
from deploy.smoke import Smoke
from deploy.state import build_of
from deploy.tokens import may_deploy, read_token
from deploy.wait import TRANSIENT, BuildFailed, wait_for_build, wake
from monitoring.prometheus import HEAD, RULES, configuration
from monitoring.reader import read


def bundle(c: Context) -> Exit:
    """Show what would travel to the Space and the builder's pip call, or --write it into a folder. Needs no token."""
    made = collect(c.wanted, project=PROJECT)
    for path, content in made.files.items():
        say(f"{len(content):>8}  {path}")
    say(f"{made.size:>8}  bytes in {len(made.files)} files, build {made.build_id}")
    packages = platform_packages(sdk_version(PROJECT / "pyproject.toml"), zero_gpu=c.wanted.zero_gpu)
    say("pip install -r requirements.txt " + " ".join(f"'{package}'" for package in packages))
    if c.args.write:
        made.write(Path(c.args.write))
        say(f"wrote {c.args.write}")
    return Exit.OK


def plan(c: Context) -> Exit:
    """Show what apply would do, what others changed, and what the hardware costs."""
    state, todo = survey(c.hub, c.target, c.bundle)
    say(f"{c.target.space} at build {c.bundle.build_id}, {len(c.bundle.files)} files, {c.bundle.size} bytes")
    price = c.hub.price(c.target.hardware)
    say(about(c.target.hardware) + (f"\nThe Hub's price now: {price}." if price else ""))
    for sentence in todo.drift:
        say(f"drift: {sentence}")
    if state.exists and not state.ours:
        say("drift: the Space has files that this tool did not put there; apply would stop (see --adopt)")
    for name in c.target.unknown:
        say(f"note: {name} is no setting of the app; the README's table has them all")
    for change in todo.changes:
        say(f"  {change}")
    say(f"{len(todo.changes)} changes" if todo.changes else "Nothing to change.")
    return Exit.OK


def apply_(c: Context) -> Exit:
    """Create or update the Space, wait for it, try it, and print what LibreChat needs."""
    may_deploy(c.account, c.target.space.partition("/")[0])
    if not c.args.no_wait:
        c.check_read_token()
    _resolve(c)
    done = apply(c.hub, c.target, c.bundle, say=say, adopt=c.args.adopt, make_private=c.args.make_private)
    for sentence in done.plan.drift:
        say(f"drift: {sentence}")
    if not done.plan.changes:
        say(f"Nothing to change: {done.space} has build {done.build_id}.")
    if not c.args.no_wait:
        try:
            wait_for_build(
                c.hub, done.space, done.address, c.access, build_id=done.build_id, settings=done.settings, say=say
            )
            code = Exit.OK if c.args.no_smoke else _smoke(c, done.address, done.build_id)
        except BuildFailed as error:
            raise DeployError(f"{error}{_go_back(c, done)}", error.code) from error
        if code is not Exit.OK:
            say(_go_back(c, done).strip())
            return code
    say("")
    say(_blocks(c, done.address))
    return Exit.OK


def status(c: Context) -> Exit:
    """What runs where, in a few lines."""
    info = verified_private(c.hub, c.target.space)
    runtime = c.hub.runtime(c.target.space)
    commits = c.hub.commits(c.target.space)
    hardware = runtime.get("hardware") or {}
    say(f"space     {c.target.space} (private)")
    say(f"address   {address_of(info.host, c.hub.endpoint, c.target.space)}")
    say(f"stage     {runtime.get('stage')}")
    say(f"hardware  {hardware.get('current') or '-'} (asked for {hardware.get('requested') or '-'})")
    say(f"sleeps    {_sleep_words(runtime.get('gcTimeout'))}")
    say(f"build     {next((b for x in commits if (b := build_of(x.title))), 'none of ours')}")
    say(f"here      {c.bundle.build_id}")
    return Exit.OK


def logs(c: Context) -> Exit:
    """Print the run log made readable, or with --build the build log."""
    lines = c.hub.logs(c.target.space, build=c.args.build, follow=c.args.follow)
    filters = {"errors": c.args.errors, "session": c.args.session, "raw": c.args.raw or c.args.build}
    for line in read(lines, colors=sys.stdout.isatty(), **filters):
        say(line)
    return Exit.OK


def prometheus(c: Context) -> Exit:
    """Write what a Prometheus needs to scrape the Space into a folder: its configuration and the alert rules."""
    folder = Path(c.args.write)
    try:
        text = configuration(c.args.address or c.address(), metrics_key=c.environ.get("METRICS_KEY", ""))
    except ValueError as error:
        raise DeployError(f"--address: {error}", Exit.USAGE) from None
    path = folder / "prometheus.yml"
    if path.exists() and not path.read_text().startswith(HEAD):
        raise DeployError(
            f"{path} is not from this command. Move it away, or take another folder with --write, and merge by hand.",
            Exit.USAGE,
        )
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(RULES, folder / "rules", dirs_exist_ok=True)
    # it may hold METRICS_KEY: closed before it is written, one from an earlier time, too
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text(text)
    say(f"wrote {path} and {folder / 'rules'}; put a read-only token into {folder / 'hf-token'}")
    return Exit.OK


def wait(c: Context) -> Exit:
    """Wait until the build on the Hub answers."""
    address = c.address()
    build = next((b for x in c.hub.commits(c.target.space) if (b := build_of(x.title))), "")
    if not build:
        raise DeployError(f"{c.target.space} has no build of this tool; run apply.", Exit.MISSING)
    wait_for_build(c.hub, c.target.space, address, c.access, build_id=build, say=say)
    return Exit.OK


def smoke(c: Context) -> Exit:
    """Try the Space, or any address given with --address, as LibreChat would use it."""
    if c.args.address:
        token = read_token(c.environ)
        access = Access(token=token, access_key=c.environ.get("ACCESS_KEY", "")) if token else None
        address = c.args.address.rstrip("/")
        return _report(
            Smoke(
                address,
                access,
                say=say,
                allow_weak=c.wanted.settings.allow_weak_sandbox,
                private=not is_loopback(address),
            )
        )
    return _smoke(c, c.address(), "")


def wake_(c: Context) -> Exit:
    """Wake the Space and say how long it took; with --every do so for ever, which keeps it awake."""
    address = ""
    while True:
        try:
            address = address or c.address()
            took = wake(address, c.access, timeout=c.args.timeout, sleep=c.pace.sleep, say=say)
            say(f"{address} answers after {took:.1f} s")
        except DeployError as error:
            # who keeps it awake for ever outlives a bad hour
            if not c.args.every or error.code not in TRANSIENT:
                raise
            warn(f"{error} Knocking again in {c.args.every:g} s.")
        if not c.args.every:
            return Exit.OK
        c.pace.sleep(c.args.every)


def librechat(c: Context) -> Exit:
    """Print what LibreChat needs: yaml and env blocks, or with --write a compose override with its proxy."""
    address = c.args.address or c.address()
    if c.args.write:
        base = c.args.public_base_url or "http://localhost:7861"
        for path in write_override(Path(c.args.write), address=address, public_base_url=base):
            say(f"wrote {path}")
        say(f"Set PUBLIC_BASE_URL = {base!r} under [variables] in deploy.toml and run apply.")
    say(_blocks(c, address))
    return Exit.OK


def doctor(c: Context) -> Exit:
    """Examine the live Space and explain what is wrong."""
    c.check_read_token()
    finding = doctors.examine(
        c.hub, c.target, c.access, own_token=bool(read_token(c.environ)), build_id=c.bundle.build_id, say=say
    )
    say(finding.sentence)
    if finding.code is Exit.OK:
        say("Not covered by any test of the project, so please look yourself:")
        for thing in doctors.UNTRIED:
            say(f"  - {thing}")
    return finding.code


def rollback_(c: Context) -> Exit:
    """Bring back the build before, or --to another one, and wait for it."""
    may_deploy(c.account, c.target.space.partition("/")[0])
    back = rollback(c.hub, c.target.space, to=c.args.to, say=say)
    if not c.args.no_wait:
        wait_for_build(c.hub, back.space, back.address, c.access, build_id=back.build_id, say=say)
    return Exit.OK


def restart(c: Context) -> Exit:
    """Restart the Space, or with --rebuild build it from nothing."""
    c.hub.restart(c.target.space, rebuild=c.args.rebuild)
    say(f"{c.target.space} restarts; `python -m deploy wait` tells when it answers.")
    return Exit.OK


def pause(c: Context) -> Exit:
    """Stop the Space until `restart`."""
    c.hub.pause(c.target.space)
    say(f"{c.target.space} is paused; sessions are gone. `python -m deploy restart` brings it back.")
    return Exit.OK


def destroy(c: Context) -> Exit:
    """Delete the Space for good, after its name was typed."""
    space = c.target.space
    if c.hub.info(space) is None:
        say(f"There is no {space}.")
        return Exit.OK
    typed = c.args.yes_delete or _ask(f"This deletes {space}, its history, secrets and sessions for good.\nIts name: ")
    if typed != space:
        raise DeployError(f"Not deleted: that is not {space}.", Exit.USAGE)
    c.hub.destroy(space)
    say(f"{space} is deleted.")
    return Exit.OK


def _go_back(c: Context, done: Applied) -> str:
    """Bring the build before back where that was asked for, and this apply put a new one in its place; says what came
    of it, beginning with a line of its own."""
    if not (c.args.rollback_on_failure and done.plan.new_build and done.former_build):
        return ""
    try:
        back = rollback(c.hub, done.space, to=done.former_build, say=say)
        wait_for_build(c.hub, back.space, back.address, c.access, build_id=back.build_id, say=say)
    except DeployError as error:
        return f"\nThe build before could not be brought back: {error}"
    return "\nThe build before runs again."


def _resolve(c: Context) -> None:
    sdk = sdk_version(PROJECT / "pyproject.toml")
    if c.args.no_resolve:
        warn("--no-resolve: whether the Space's builder can install this set was not tried.")
        return
    say("Resolving the packages as the Space's builder will")
    found = resolve(
        c.bundle.files["requirements.txt"].decode(),
        sdk=sdk,
        python_version=c.target.python_version,
        zero_gpu=c.target.zero_gpu,
        withheld=c.target.secrets,
    )
    say(f"  {len(found.packages)} packages{f', {found.note}' if found.note else ''}")


def _smoke(c: Context, address: str, build_id: str) -> Exit:
    c.check_read_token()
    offered = c.target.settings.tools
    return _report(
        Smoke(
            address,
            c.access,
            build_id=build_id,
            say=say,
            allow_weak=c.target.settings.allow_weak_sandbox,
            offered=offered,
        )
    )


def _report(smoke: Smoke) -> Exit:
    report = asyncio.run(smoke.run())
    if report.ok:
        say(f"{len(report.checks)} checks passed, sandbox {report.level}.")
        return Exit.OK
    failed = [check.name for check in report.checks if not check.ok]
    say(f"Failed: {'; '.join(failed)}. Run `python -m deploy doctor` and `python -m deploy logs` to learn why.")
    return Exit.WEAK_SANDBOX if report.only_weak else Exit.SMOKE


def _blocks(c: Context, address: str) -> str:
    return blocks(
        address,
        transport=c.args.transport,
        version=c.args.librechat_version,
        auth_header=c.args.auth_header,
        access_key="ACCESS_KEY" in c.target.secrets or bool(c.environ.get("ACCESS_KEY")),
        whole_file=c.args.whole_file,
    )


def _sleep_words(seconds: object) -> str:
    if isinstance(seconds, (int, float)) and seconds > 0:
        return f"after {seconds / 3600:g} hours without a visit"
    return "never" if seconds == -1 else "as the hardware has it"


def _ask(question: str) -> str:
    try:
        return input(question).strip()
    except EOFError:
        return ""


COMMANDS: dict[str, Callable[[Context], Exit]] = {
    "bundle": bundle,
    "plan": plan,
    "apply": apply_,
    "status": status,
    "logs": logs,
    "prometheus": prometheus,
    "wait": wait,
    "smoke": smoke,
    "wake": wake_,
    "librechat": librechat,
    "doctor": doctor,
    "rollback": rollback_,
    "restart": restart,
    "pause": pause,
    "destroy": destroy,
}
