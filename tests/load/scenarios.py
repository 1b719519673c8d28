"""Scenarios: what happens beside the clients, each with what must hold afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time

from executor.settings import Settings
from space.connections import MAX_WAITING_BYTES
from tests.e2e.running import client, data_of, identity, text_of
from tests.load.cells import short
from tests.load.client import ask
from tests.load.plan import Plan
from tests.load.server import Server
from tests.load.sockets import Raw, die_uploading, hold, stop_reading
from tests.load.tally import ALONE, IN_A_ROW, Tally

UNCOUNTED = 5
"""Cells of a session that come before the counted ones: the first makes the session."""
SAMPLE_EVERY = 5.0
MAX_SLOW_BYTES = MAX_WAITING_BYTES + (1 << 20)
"""What a client that does not read may cost: what waits for it, and the buffers of its connection."""


async def sampling(server: Server, tally: Tally) -> None:
    """Look at memory every few seconds, until cancelled."""
    while True:
        await asyncio.sleep(SAMPLE_EVERY)
        if sample := await asyncio.to_thread(server.sample):
            tally.samples.append(sample)


async def alone(server: Server, tally: Tally, plan: Plan) -> None:
    """Short cells of one client while nobody else is there: what those under load are compared with.

    First one after the other, which finds everything in the processor's caches, then with pauses as clients make them,
    the long ones cut.
    """
    chance = random.Random(plan.seed)
    async with client(server.url, "sse", identity("alone", "alone")) as session:
        for number in range(UNCOUNTED + 2 * plan.alone):
            paced = number >= UNCOUNTED + plan.alone
            if paced and plan.pause:
                await asyncio.sleep(min(chance.expovariate(1 / plan.pause), plan.pause))
            cell = short(chance)
            began = time.monotonic()
            answer = await ask(session, cell.tool, cell.arguments)
            if number >= UNCOUNTED:
                tally.took(ALONE if paced else IN_A_ROW, time.monotonic() - began)
            if not all(word in text_of(answer) for word in cell.words):
                tally.complain("wrong", f"a short cell alone should have {cell.words}: {text_of(answer)[:300]}")
        await session.call_tool("close_execution_session", {"session_id": data_of(answer)["session_id"]})


async def killing(server: Server, tally: Tally, plan: Plan, until: float) -> None:
    """SIGKILL at random moments, and a start on the same state after each, until `until`."""
    chance = random.Random(plan.seed)
    starts = []
    while not plan.kills or tally.kills < plan.kills:
        wait = chance.uniform(0.5, 1.5) * plan.kill_every
        if time.monotonic() + wait > until:
            break
        await asyncio.sleep(wait)
        await server.kill()
        tally.kills += 1
        starts.append(round(await server.start(), 1))
    tally.facts["seconds of starts after kills"] = starts
    if server.late_to_end:
        tally.complain("unexpected", f"{server.late_to_end} processes of killed servers did not end by themselves")


async def idle_connections(server: Server, tally: Tally, count: int) -> list[Raw]:
    """Hold `count` connections; the caller closes them."""
    before = server.sample()
    held = await hold(server.url, count)
    after = server.sample()
    if before and after:
        each = (after.server_mib - before.server_mib) * 1024 / count
        tally.facts["idle connections"] = f"{len(held)} held, {each:.0f} kB each"
    if len(held) != count:
        tally.complain("unexpected", f"of {count} connections only {len(held)} were taken")
    return held


async def slow_readers(server: Server, tally: Tally, count: int) -> list[Raw]:
    """Let `count` clients stop reading; what waits for them must have a bound. The caller closes them."""
    before = server.sample()
    deaf = await stop_reading(server.url, count)
    after = server.sample()
    if before and after:
        grown = after.server_mib - before.server_mib
        tally.facts["slow readers"] = f"{count} stopped reading, the server grew by {grown:.0f} MiB"
        if grown * (1 << 20) > count * MAX_SLOW_BYTES + (64 << 20):
            tally.complain("unexpected", f"{count} clients that do not read cost {grown:.0f} MiB")
    return deaf


async def dying_uploads(server: Server, tally: Tally, count: int) -> None:
    """Break off `count` uploads into one session; nothing of them may be left there, nor a descriptor."""
    before = server.sample()
    async with client(server.url, "sse", identity("uploader", "uploader")) as session:
        page = await session.call_tool("open_session_page", {})
        if page.isError:
            tally.complain("unexpected", f"no link to upload to: {text_of(page)}")
            return
        await die_uploading(data_of(page)["upload_url"], count)
        left = "?"
        # what is on its way when the connection ends is still taken in, and then put away
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(30):
                while left != "0":
                    await asyncio.sleep(0.2)
                    looked = await session.call_tool(
                        "execute_bash_command", {"command": 'echo "left $(find . -size +100k -type f | wc -l)"'}
                    )
                    left = next((w[1] for line in text_of(looked).splitlines() if len(w := line.split()) == 2), left)
        tally.facts["dying uploads"] = f"{count} broke off, {left} files are left"
        if left != "0":
            tally.complain("unexpected", f"{left} files of uploads that broke off are left")
        await session.call_tool("close_execution_session", {"session_id": data_of(page)["session_id"]})
    await asyncio.sleep(1)
    after = server.sample()
    if before and after and after.descriptors > before.descriptors + Settings().spare_sessions * 8 + 8 + count // 4:
        tally.complain("unexpected", f"descriptors grew from {before.descriptors} to {after.descriptors} by uploads")
