"""Plan: what a run does, as flags say."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

MAX_CLIENTS = 200
MAX_MINUTES = 240.0
MAX_SOCKETS = 5_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many, how long, and what else happens meanwhile. Seconds, unless a name says something else."""

    clients: int = 20
    seconds: float = 120.0
    max_sessions: int = 8
    pause: float = 0.5
    """Mean of the pauses between two cells of a client; one in ten is ten times as long."""
    ramp: float = 0.0
    """Time in which the clients arrive."""
    payload_kb: int = 64
    """Size of the variable that every stateful cell replaces and the next one checks."""
    alone: int = 40
    """Short cells of one client before the others come."""
    kill_every: float = 0.0
    """Mean time between two SIGKILLs of the server; 0: none."""
    kills: int = 0
    """At most so many; 0: as many as there is time for."""
    slow_readers: int = 0
    connections: int = 0
    dying_uploads: int = 0
    settle: float = 10.0
    """How long the server is left alone before its memory is measured at the start and at the end."""
    seed: int = 1
    json: str = ""
    """File for the figures."""


def parse(arguments: list[str]) -> Plan:
    """The plan that a command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.load", description=__doc__)
    whole = _between(int, 0, MAX_SOCKETS)
    parser.add_argument("--clients", type=_between(int, 1, MAX_CLIENTS), default=20, help="MCP clients, an owner each")
    parser.add_argument("--minutes", type=_between(float, 0.01, MAX_MINUTES), default=2.0)
    parser.add_argument("--max-sessions", type=_between(int, 1, 1_000), default=8, help="MAX_SESSIONS of the server")
    parser.add_argument("--pause", type=_between(float, 0.0, 60.0), default=0.5, help="mean pause of a client, seconds")
    parser.add_argument("--ramp", type=_between(float, 0.0, 600.0), default=0.0, help="seconds in which clients arrive")
    parser.add_argument("--payload-kb", type=_between(int, 0, 16_384), default=64, help="state of a session, kB")
    parser.add_argument(
        "--alone",
        type=whole,
        default=40,
        help="short cells of one client at first, twice",
    )
    parser.add_argument("--kill-every", type=_between(float, 0.0, 3600.0), default=0.0, help="SIGKILL of the server, s")
    parser.add_argument("--kills", type=_between(int, 0, 1_000), default=0, help="at most so many")
    parser.add_argument("--slow-readers", type=whole, default=0, help="SSE clients that stop reading")
    parser.add_argument("--connections", type=whole, default=0, help="idle SSE connections beside the clients")
    parser.add_argument("--dying-uploads", type=whole, default=0, help="uploads that break off in the middle")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", default="", help="file for the figures")
    given = vars(parser.parse_args(arguments))
    return Plan(seconds=given.pop("minutes") * 60, **given)


def _between(kind: type[int] | type[float], low: float, high: float):  # type: ignore[no-untyped-def]
    def parsed(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text}: give a number from {low:g} to {high:g}")
        return value

    return parsed
