"""Measuring: what every session uses now, charged to its owner."""

from __future__ import annotations

import asyncio

from executor.errors import ExecutorError
from executor.events import SessionMeasured
from executor.parts import Parts
from executor.sessions import Session

AT_ONCE = 2


async def measure(parts: Parts) -> list[SessionMeasured]:
    """Ask the leader of every live session; one that cannot be measured is left out."""
    table, few = parts.keeper.table, asyncio.Semaphore(AT_ONCE)

    async def of(session: Session) -> SessionMeasured | None:
        try:
            async with few:
                ref = session.live_ref
                stats = await parts.backend.stats(ref)
        except ExecutorError:
            return None  # it has ended, is parked, or is about to be found dead
        if session not in table or session.ref != ref:
            return None  # its owner is not to be charged for what has gone meanwhile
        parts.quotas.note_memory(session.owner, session.id, stats.memory)
        parts.quotas.note_folder(session.owner, session.id, stats.folder_bytes)
        return SessionMeasured(
            session_id=session.id,
            owner=session.owner,
            memory=stats.memory,
            processes=stats.processes,
            folder_bytes=stats.folder_bytes,
        )

    measured = await asyncio.gather(*(of(session) for session in table.live()))
    return [one for one in measured if one is not None]
