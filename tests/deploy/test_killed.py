"""SIGKILL after each request of `apply` in turn: nothing leaked, and the next apply completes."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from dataclasses import dataclass

import pytest

from deploy.bundle import collect
from tests.deploy.conftest import SECRETS, WRITE
from tests.deploy.invariants import nothing_leaked
from tests.deploy.victim import TARGET, deploying
from tests.hub import Fault, Kill, LocalHub


@dataclass(frozen=True)
class Whoever(Kill):
    """Kills the process that is applying when the moment comes."""

    def __call__(self) -> None:
        os.kill(victims.get(timeout=20), signal.SIGKILL)


# one that waits: the process may make its request before its id is known here
victims: queue.SimpleQueue[int] = queue.SimpleQueue()


@pytest.fixture(scope="module")
def forks() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.deploy.victim"])
    return context


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_each_request_in_turn_leaks_nothing_and_is_completed_by_the_next_apply(
    hub: LocalHub, still_tree, forks, moment
) -> None:
    bundle = collect(TARGET, project=still_tree)

    def run() -> int:
        process = forks.Process(target=deploying, args=(hub.url, dict(bundle.files)))
        while not victims.empty():
            victims.get()
        process.start()
        victims.put(process.pid)
        process.join(60)
        code = process.exitcode
        process.close()
        assert code is not None
        return code

    assert run() == 0
    keys = [exchange.key for exchange in hub.record]
    for method, route, number in keys:
        hub.reset()
        hub.faults.append(Fault(method, route, number, Whoever(0, moment)))
        where = f"killed {moment} {method} {route} #{number}"
        assert run() == -signal.SIGKILL, where
        nothing_leaked(hub, SECRETS, (WRITE,))
        hub.faults.clear()
        assert run() == 0, where
        nothing_leaked(hub, SECRETS, (WRITE,))
        space = hub.spaces[TARGET.space]
        assert {k: v["value"] for k, v in space.secrets.items()} == SECRETS, where
        assert {path: space.files[path] for path in bundle.files} == bundle.files, where
        assert len(space.commits) == 2, f"{where}: committed twice"
