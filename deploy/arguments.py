"""The arguments of every command. None of them takes a token: others could read it there."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from deploy.commands import COMMANDS
from deploy.context import Context
from deploy.errors import Exit
from deploy.tokens import READ


def parser() -> argparse.ArgumentParser:
    """The arguments of every command."""
    whole = argparse.ArgumentParser(
        prog="python -m deploy",
        description="Put the code interpreter on a private Hugging Face Space. Tokens come from the environment "
        f"(HF_TOKEN may write, {READ} may only read), never from the command line.",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", default="deploy.toml", help="settings file (default: deploy.toml, if there)")
    common.add_argument("--space", help="name or owner/name of the Space")
    common.add_argument("--hardware", help="such as cpu-basic, or zero-a10g for a free account")
    block = argparse.ArgumentParser(add_help=False)
    block.add_argument("--transport", choices=("sse", "streamable-http"), default="sse", help="for librechat.yaml")
    block.add_argument("--librechat-version", default="0.8.8", help="your LibreChat's version")
    block.add_argument(
        "--auth-header",
        choices=("Authorization", "X-HF-Authorization"),
        default="Authorization",
        help="X-HF-Authorization is taken off by Hugging Face's proxy, so that the app never sees the token",
    )
    block.add_argument("--whole-file", action="store_true", help="begin with the version line that a new file needs")
    commands = whole.add_subparsers(dest="command", required=True, metavar="command")
    shared = {"apply": [common, block], "librechat": [common, block], "doctor": [common], "smoke": [common]}
    made = {
        name: commands.add_parser(name, help=_first(act), description=act.__doc__, parents=shared.get(name, [common]))
        for name, act in COMMANDS.items()
    }
    made["bundle"].add_argument("--write", metavar="FOLDER", help="put the files there, to look at or to run")
    made["apply"].add_argument("--adopt", action="store_true", help="replace the files of a Space that others filled")
    made["apply"].add_argument("--make-private", action="store_true", help="take over a public Space of yours")
    made["apply"].add_argument("--no-resolve", action="store_true", help="do not try the builder's pip call first")
    made["apply"].add_argument("--no-smoke", action="store_true", help="do not try the Space afterwards")
    made["apply"].add_argument(
        "--rollback-on-failure", action="store_true", help="where the new build fails, bring the one before back"
    )
    for name in ("apply", "rollback"):
        made[name].add_argument("--no-wait", action="store_true", help="do not wait until the build answers")
    made["logs"].add_argument("--build", action="store_true", help="the build log instead of the run log")
    made["logs"].add_argument("--follow", action="store_true", help="go on until Ctrl+C")
    made["logs"].add_argument("--errors", action="store_true", help="only what needs a look")
    made["logs"].add_argument("--session", default="", help="only one session, by the first digits that the log shows")
    made["logs"].add_argument("--raw", action="store_true", help="lines as they came")
    made["prometheus"].add_argument("--write", metavar="FOLDER", default="prometheus", help="where to (./prometheus)")
    made["prometheus"].add_argument("--address", help="any address instead of the Space's")
    made["smoke"].add_argument("--address", help="any address instead of the Space's, e.g. http://127.0.0.1:7860")
    made["wake"].add_argument("--timeout", type=float, default=600.0, help="seconds to knock (default: 600)")
    made["wake"].add_argument("--every", type=float, default=0.0, help="knock again every so many seconds, for ever")
    made["librechat"].add_argument("--address", help="any address instead of the Space's")
    made["librechat"].add_argument("--write", metavar="FOLDER", help="LibreChat's folder, for the compose override")
    made["librechat"].add_argument("--public-base-url", help="address of the proxy for signed links")
    made["rollback"].add_argument("--to", default="", metavar="BUILD", help="first digits of a build (default: before)")
    made["restart"].add_argument("--rebuild", action="store_true", help="from nothing, without cached packages")
    made["destroy"].add_argument("--yes-delete", metavar="OWNER/NAME", help="the name, instead of being asked for it")
    return whole


def _first(act: Callable[[Context], Exit]) -> str:
    return (act.__doc__ or "").split(".")[0]
