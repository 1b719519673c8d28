"""Runs a load and prints what came of it; exits with 1 where something went wrong that the script did not cause."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from space.connections import raise_descriptor_limit
from tests.load.client import CALL_SECONDS, Client
from tests.load.plan import Plan, parse
from tests.load.scenarios import alone, dying_uploads, idle_connections, killing, sampling, slow_readers
from tests.load.server import Server
from tests.load.tally import Tally


async def run(plan: Plan, folder: Path) -> Tally:
    """One run, with everything that it started ended, whatever happens."""
    tally = Tally()
    server = Server(folder, max_sessions=plan.max_sessions, connections=2_500 + plan.connections)
    sockets = []
    clients: list[Client] = []
    beside: list[asyncio.Task[None]] = []
    try:
        tally.facts["seconds of the start"] = round(await server.start(), 1)
        await asyncio.sleep(plan.settle)
        if sample := server.sample():
            tally.samples.append(sample)
        if plan.alone:
            await alone(server, tally, plan)
        if plan.connections:
            sockets += await idle_connections(server, tally, plan.connections)
        if plan.slow_readers:
            sockets += await slow_readers(server, tally, plan.slow_readers)
        until = time.monotonic() + plan.seconds
        beside = [asyncio.create_task(sampling(server, tally), name="sampling")]
        clients = [Client(number, plan, server, tally) for number in range(plan.clients)]
        work = [asyncio.create_task(client.run(until), name=client.name) for client in clients]
        if plan.kill_every:
            work.append(asyncio.create_task(killing(server, tally, plan, until), name="killing"))
        if plan.dying_uploads:
            work.append(asyncio.create_task(dying_uploads(server, tally, plan.dying_uploads), name="uploads"))
        beside += work
        _, late = await asyncio.wait(work, timeout=plan.seconds + 2 * CALL_SECONDS)
        for task in late:
            tally.complain("unexpected", f"{task.get_name()} did not come to an end")
        for task in work:
            if task not in late and (error := task.exception()):
                tally.complain("unexpected", f"{task.get_name()} failed: {error!r}")
        for raw in sockets:
            raw.close()
        beside[0].cancel()  # the sampling: the last sample is of a server at rest, not of one that ends
        await asyncio.sleep(plan.settle)
        if sample := server.sample():
            tally.samples.append(sample)
        if code := await server.stop():
            tally.complain("unexpected", f"the server ended with {code}")
    finally:
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)
        for raw in sockets:
            raw.close()
        await server.stop()
    _audit(server, tally, [code for client in clients for code in client.codes])
    faults = [line for line in server.log.read_text(errors="replace").splitlines() if '"event":"fault"' in line]
    for line in faults:
        tally.complain("unexpected", f"the server's log: {line}")
    return tally


def _audit(server: Server, tally: Tally, codes: list[str]) -> None:
    """No cell may have run twice, whatever was killed: each that was sent is its leader's at most once."""
    ran = Counter(json.loads(line)["sha256"] for line in server.journal.read_text().splitlines())
    tally.facts["cells in the leaders' journal"] = ran.total()
    known = sum(code in ran for code in codes)
    tally.facts["stateful cells sent, and in the journal"] = f"{len(codes)}, {known}"
    if codes and not known:
        tally.complain("unexpected", "the leaders' journal knows none of the cells")
    for code in codes:
        if ran[code] > 1:
            tally.complain("twice", f"the cell {code[:12]} was handed to an interpreter {ran[code]} times")


def main(arguments: list[str]) -> int:
    """The exit code."""
    plan = parse(arguments)
    raise_descriptor_limit()
    # the SDK logs a traceback for each connection that a kill breaks, which is what was asked for
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="load-", ignore_cleanup_errors=True) as folder:
        tally = asyncio.run(run(plan, Path(folder)))
    print(tally.report())
    if plan.json:
        with contextlib.suppress(OSError):
            Path(plan.json).write_text(json.dumps(tally.figures(), indent=1) + "\n")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
