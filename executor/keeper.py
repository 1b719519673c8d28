"""Keeper: opens sessions, finds them for their owners, and ends them when their time has come."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable

from executor.backend import Backend, SessionSpec
from executor.errors import ExecutorError, SandboxTooWeak
from executor.events import Bus, Fault, SessionClosed, SessionOpened
from executor.sandbox.report import SandboxReport
from executor.sessions import EndReason, Session, SessionTable, new_id
from executor.settings import Settings
from executor.tasks import Tasks

SWEEP_EVERY = 5.0
"""Seconds between two looks for sessions that have expired or died."""


class Keeper:
    """Keeps the sessions of one backend. `forget` is told the id of every session that ends."""

    def __init__(
        self,
        settings: Settings,
        backend: Backend,
        sandbox: SandboxReport,
        *,
        bus: Bus,
        tasks: Tasks,
        forget: Callable[[str], None],
    ) -> None:
        self.table = SessionTable(settings.max_sessions)
        self._settings = settings
        self._backend = backend
        self._sandbox = sandbox
        self._bus = bus
        self._tasks = tasks
        self._forget = forget
        self._making: dict[tuple[str, str], asyncio.Task[Session]] = {}
        self._sweeper = asyncio.create_task(self._sweep_on(), name="session-sweeper")

    def close(self) -> None:
        """Let go of every session; the backend's own end ends them."""
        self._sweeper.cancel()
        for session in self.table.all():
            if self.table.remove(session, "shutdown"):
                self._say_closed(session, "shutdown")

    def find(self, session_id: str, owner: str, conversation: str | None) -> Session:
        """The caller's live session. Raises NoSuchSession."""
        session = self.table.find(session_id, owner, conversation)
        if self._backend.alive(session.ref):
            return session
        self._tasks.own(self.end(session, "failed"))
        self.table.remove(session, "failed")
        self._say_closed(session, "failed")
        return self.table.find(session_id, owner, conversation)  # raises, and says why it ended

    async def target(self, session_id: str | None, owner: str, conversation: str | None) -> Session:
        """The session that is named, else the conversation's own, else a fresh one."""
        if session_id is not None:
            return self.find(session_id, owner, conversation)
        if conversation is not None:
            return await self.own_session(owner, conversation)
        return await self.create(owner, None)

    async def own_session(self, owner: str, conversation: str) -> Session:
        """The conversation's own session, made on first use."""
        session = self.table.of_conversation(owner, conversation)
        if session is not None:
            if self._backend.alive(session.ref):
                return session
            await self.end(session, "failed")
        key = owner, conversation
        making = self._making.get(key)
        if making is None:
            making = self._tasks.own(self.create(owner, conversation, own=True))
            self._making[key] = making
            making.add_done_callback(lambda _: self._making.pop(key, None))
        # two first calls of a conversation share one session; neither going away takes it from the other
        return await asyncio.shield(making)

    async def create(self, owner: str, conversation: str | None, *, own: bool = False) -> Session:
        """A new session; over `MAX_SESSIONS` the one idle longest ends for it. Raises Busy or SandboxTooWeak."""
        if self._sandbox.level == "weak" and not self._settings.allow_weak_sandbox:
            raise SandboxTooWeak(
                "This host cannot hold hostile code, so nothing is executed here. Missing: "
                + " ".join(self._sandbox.missing())
                + " ALLOW_WEAK_SANDBOX=1 executes all the same: every user can then reach the others' files."
            )
        user = self._sandbox.layers.get("user")
        if self._sandbox.level == "weak" and user is not None and not user.on and os.geteuid() == 0:
            raise SandboxTooWeak(
                "This host cannot hold hostile code, and here it would run as root, with the whole machine in reach. "
                "Nothing is executed. Start as an ordinary user."
            )
        began = time.monotonic()
        victim = self.table.reserve()
        try:
            if victim is not None:
                await self.end(victim, "evicted")
            session_id = new_id()
            ref = await self._backend.create(SessionSpec(session_id))
        except BaseException:
            self.table.release()
            raise
        session = Session(
            id=session_id,
            owner=owner,
            conversation=conversation,
            ref=ref,
            history=deque(maxlen=self._settings.history_entries),
        )
        self.table.add(session, own=own)
        self._bus.publish(SessionOpened(session_id=session.id, owner=owner, seconds=time.monotonic() - began))
        return session

    async def end(self, session: Session, reason: EndReason) -> None:
        """End a session with all its processes, variables and files."""
        if self.table.remove(session, reason):
            self._say_closed(session, reason)
        self._forget(session.id)
        await self._backend.close(session.ref)

    def _say_closed(self, session: Session, reason: EndReason) -> None:
        age = time.time() - session.created_at
        self._bus.publish(SessionClosed(session_id=session.id, owner=session.owner, reason=reason, age=max(0.0, age)))

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_EVERY, self._settings.session_ttl / 4))
            try:
                await self._sweep()
            except ExecutorError as error:
                self._bus.publish(Fault(where="sweep", detail=str(error)))

    async def _sweep(self) -> None:
        oldest = time.monotonic() - self._settings.session_ttl
        for session in self.table.all():
            if session.busy:
                continue
            if not self._backend.alive(session.ref):
                await self.end(session, "failed")
            elif session.touched < oldest:
                await self.end(session, "expired")
