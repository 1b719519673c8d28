"""The command line: `python -m deploy <command>`."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from huggingface_hub import constants

from deploy.arguments import parser
from deploy.commands import COMMANDS
from deploy.context import Context
from deploy.errors import DeployError, Exit
from deploy.retries import Pace


def main(
    argv: Sequence[str] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    pace: Pace | None = None,
    endpoint: str = constants.ENDPOINT,
) -> int:
    """Run one command against the Hub at `endpoint`; returns its exit code."""
    args = parser().parse_args(argv)
    context = Context(args, os.environ if environ is None else environ, pace or Pace(), endpoint)
    try:
        return int(COMMANDS[args.command](context))
    except DeployError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return int(error.code)
    except OSError as error:
        if not error.filename:
            raise
        what = f"{error.filename} cannot be read or written: {error.strerror}"
        print(f"error: {what}. Correct that, or give another path.", file=sys.stderr, flush=True)
        return int(Exit.USAGE)
    except KeyboardInterrupt:
        print(
            "\nStopped. What was done stays, nothing is half done; the same command again completes it.",
            file=sys.stderr,
            flush=True,
        )
        return int(Exit.INTERRUPTED)
