"""Executor: the façade. Checks the caller, the request and the policy, finds the session, and says what happened."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Self

from executor.backend import Backend, ExecutionEvent, Finished, SessionSpec, SessionStats
from executor.errors import BackendFailed, ExecutorError, SandboxTooWeak
from executor.events import (
    Bus,
    Fault,
    FileTransferred,
    SandboxProbed,
    SessionClosed,
    SessionMeasured,
    SessionOpened,
)
from executor.packages.installer import Installer
from executor.packages.report import PackageReport
from executor.request import check_request
from executor.results import ExecutionResult, FileInfo, HistoryEntry, SessionInfo
from executor.runner import PolicyLevel, Runner
from executor.sandbox.report import SandboxReport
from executor.sessions import EndReason, Run, Session, SessionTable, new_id
from executor.settings import Settings
from executor.tasks import Tasks

SWEEP_EVERY = 5.0
"""Seconds between two looks for sessions that have expired or died."""
_MEASURED_AT_ONCE = 8


class Executor:
    """Runs code in live sessions: `async with Executor(Settings.from_env()) as ex: await ex.execute(...)`.

    A session is reached by its owner only, and only from the conversation it was made in: every method takes both, and
    raises NoSuchSession alike for what is foreign and what does not exist. What the guest's code does wrong is in the
    ExecutionResult; a request that cannot be carried out raises an ExecutorError with a sentence for its reader.
    """

    def __init__(self, settings: Settings, *, backend: Backend | None = None, bus: Bus | None = None) -> None:
        self.settings = settings
        self.bus = bus or Bus()
        self._backend = backend
        self._table = SessionTable(settings.max_sessions)
        self._making: dict[tuple[str, str], asyncio.Task[Session]] = {}
        self._tasks = Tasks(self.bus)
        self._runner_or_none: Runner | None = None
        self._installer_or_none: Installer | None = None
        self._sandbox: SandboxReport | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Start the backend and learn how well it holds code."""
        if self._backend is None:
            # here and not above: whoever brings a backend of their own does not pay for this one
            from executor.local import LocalBackend  # noqa: PLC0415

            self._backend = LocalBackend(self.settings)
        self._sandbox = await self._backend.open(self.bus.publish)
        self._runner_or_none = Runner(self._backend, bus=self.bus, tasks=self._tasks, level=lambda: self.policy_level)
        self._installer_or_none = Installer(self.settings, self._backend, self.bus.publish)
        layers = {name: (layer.on, layer.why) for name, layer in self._sandbox.layers.items()}
        self.bus.publish(SandboxProbed(level=self._sandbox.level, layers=layers))
        self._sweeper = asyncio.create_task(self._sweep_on(), name="session-sweeper")

    async def aclose(self) -> None:
        """End every session. Idempotent."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        if self._installer_or_none is not None:
            await self._installer_or_none.aclose()
        for session in self._table.all():
            if self._table.remove(session, "shutdown"):
                self._say_closed(session, "shutdown")
        if self._backend is not None:
            await self._backend.aclose()
        await self._tasks.join(timeout=5)

    @property
    def sandbox(self) -> SandboxReport:
        """How well code is held here; known once started."""
        if self._sandbox is None:
            raise BackendFailed("The executor has not been started.")
        return self._sandbox

    @property
    def policy_level(self) -> PolicyLevel:
        """The level in force: `auto` is `standard` where the sandbox holds, `strict` where it is weak."""
        if self.settings.security_policy == "auto":
            return "strict" if self.sandbox.level == "weak" else "standard"
        return self.settings.security_policy

    # Sessions

    async def create_session(self, *, owner: str, conversation: str | None = None) -> SessionInfo:
        """A new session, beside any that the caller has. Raises Busy where every place is at work."""
        return (await self._create(owner, conversation, own=False)).info()

    async def session_for(self, *, owner: str, conversation: str) -> SessionInfo:
        """The conversation's own session, made on first use."""
        return (await self._own_session(owner, conversation)).info()

    def session(self, session_id: str, *, owner: str, conversation: str | None = None) -> SessionInfo:
        """What is known of a session."""
        return self._table.find(session_id, owner, conversation).info()

    def list_sessions(self, *, owner: str, conversation: str | None = None) -> list[SessionInfo]:
        """The caller's sessions, oldest first."""
        return [session.info() for session in self._table.of(owner, conversation)]

    def all_sessions(self) -> list[SessionInfo]:
        """Every session, for the operator."""
        return [session.info() for session in self._table.all()]

    def history(self, session_id: str, *, owner: str, conversation: str | None = None) -> list[HistoryEntry]:
        """What ran in a session, oldest first, at most `HISTORY_ENTRIES`; without the bytes of pictures."""
        return list(self._table.find(session_id, owner, conversation).history)

    async def stats(self, session_id: str, *, owner: str, conversation: str | None = None) -> SessionStats:
        """What a session uses now."""
        return await self._running_backend().stats(self._find(session_id, owner, conversation).ref)

    async def close_session(self, session_id: str, *, owner: str, conversation: str | None = None) -> None:
        """End a session with all its processes, variables and files."""
        await self._end(self._table.find(session_id, owner, conversation), "closed")

    # Executions

    async def execute(
        self,
        code: str,
        *,
        language: str,
        owner: str,
        conversation: str | None = None,
        session_id: str | None = None,
        timeout: float | None = None,
    ) -> ExecutionResult:
        """Run code to its end. Cancelling the awaiting task interrupts the code and keeps the session.

        Without `session_id` it runs in the conversation's own session, or without a conversation in a fresh one.
        `timeout` is in seconds, `EXECUTION_TIMEOUT` where not given.
        """
        session, run = await self._submit(code, language, owner, conversation, session_id, timeout)
        assert run.task is not None
        try:
            return await asyncio.shield(run.task)
        except asyncio.CancelledError:
            self._runner.stop(session, run)
            raise

    async def start_execution(
        self,
        code: str,
        *,
        language: str,
        owner: str,
        conversation: str | None = None,
        session_id: str | None = None,
        timeout: float | None = None,
    ) -> tuple[str, str]:
        """(session id, execution id) of code that now runs or waits for its turn; `attach` follows it."""
        session, run = await self._submit(code, language, owner, conversation, session_id, timeout)
        return session.id, run.id

    async def attach(
        self, execution_id: str, *, session_id: str, owner: str, conversation: str | None = None
    ) -> AsyncIterator[ExecutionEvent]:
        """The events of an execution up to `Finished`, from any number of places, also after its end."""
        session = self._table.find(session_id, owner, conversation)
        run = session.run(execution_id)
        if run.finished is None:
            await run.started.wait()
        if run.finished is None:
            async for event in self._running_backend().attach(session.ref, execution_id):
                if isinstance(event, Finished):
                    break
                yield event
        assert run.task is not None
        await asyncio.shield(asyncio.wait([run.task]))
        if run.finished is not None:
            yield run.finished

    async def wait(
        self,
        *,
        session_id: str,
        owner: str,
        patience: float,
        conversation: str | None = None,
        execution_id: str | None = None,
    ) -> ExecutionResult:
        """The result of an execution, or after `patience` seconds `running` with its output so far.

        Without `execution_id` it is what runs in the session, or else ran last. Whoever got `running` has let go of
        it: it counts as detached, so that no further code queues behind it. The end can be asked for again and again
        while the session remembers it. Cancelling ends the waiting alone.
        """
        session = self._find(session_id, owner, conversation)
        session.touch()
        run = session.run(execution_id)
        if run.finished is None and run.task is not None:
            await asyncio.wait([run.task], timeout=patience)
            run.detached = run.finished is None
        return await self._runner.so_far(session, run)

    async def so_far(
        self, *, session_id: str, owner: str, conversation: str | None = None, execution_id: str | None = None
    ) -> ExecutionResult:
        """As `wait`, but at once and without detaching."""
        session = self._table.find(session_id, owner, conversation)
        return await self._runner.so_far(session, session.run(execution_id))

    async def interrupt(
        self, *, session_id: str, owner: str, conversation: str | None = None, execution_id: str | None = None
    ) -> bool:
        """Stop what runs in a session, or one execution of it; False where nothing was to be stopped."""
        session = self._table.find(session_id, owner, conversation)
        session.touch()
        run = session.run(execution_id) if execution_id else session.running
        if run is None or run.finished is not None:
            return False
        # it ends in a moment, so that code may queue behind it again
        run.detached = False
        self._runner.stop(session, run)
        return True

    # Files

    async def put_file(
        self,
        session_id: str,
        path: str,
        chunks: AsyncIterable[bytes],
        *,
        owner: str,
        conversation: str | None = None,
    ) -> FileInfo:
        """Write a file into a session's folder; it appears as a whole when the last chunk is there."""
        session = self._find(session_id, owner, conversation)
        info = await self._running_backend().put_file(session.ref, path, chunks)
        session.touch()
        self.bus.publish(FileTransferred(session_id=session.id, owner=owner, action="put", size=info.size))
        return info

    async def get_file(
        self,
        session_id: str,
        path: str,
        *,
        owner: str,
        conversation: str | None = None,
        offset: int = 0,
        length: int | None = None,
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of a file, `length` of them from `offset` on."""
        session = self._find(session_id, owner, conversation)
        session.touch()
        size = 0
        try:
            async for data in self._running_backend().get_file(session.ref, path, offset=offset, length=length):
                size += len(data)
                yield data
        finally:
            self.bus.publish(FileTransferred(session_id=session.id, owner=owner, action="get", size=size))

    async def file_info(self, session_id: str, path: str, *, owner: str, conversation: str | None = None) -> FileInfo:
        """Size and time of one file, hidden ones included. Raises NoSuchFile or FileRefused."""
        return await self._running_backend().file_info(self._find(session_id, owner, conversation).ref, path)

    async def list_files(self, session_id: str, *, owner: str, conversation: str | None = None) -> list[FileInfo]:
        """The files of a session's folder, sorted by path."""
        return await self._running_backend().list_files(self._find(session_id, owner, conversation).ref)

    async def move_file(
        self, session_id: str, path: str, target: str, *, owner: str, conversation: str | None = None
    ) -> FileInfo:
        """Rename a file of a session."""
        session = self._find(session_id, owner, conversation)
        info = await self._running_backend().move_file(session.ref, path, target)
        self.bus.publish(FileTransferred(session_id=session.id, owner=owner, action="move", size=info.size))
        return info

    async def delete_file(self, session_id: str, path: str, *, owner: str, conversation: str | None = None) -> None:
        """Delete a file or folder of a session."""
        session = self._find(session_id, owner, conversation)
        await self._running_backend().delete_file(session.ref, path)
        self.bus.publish(FileTransferred(session_id=session.id, owner=owner, action="delete", size=0))

    # For the operator, who is no owner: whoever offers these to anybody must have checked that first

    async def admin_interrupt(self, session_id: str) -> bool:
        """Stop what runs in a session, whoever's it is; False where nothing ran. Raises NoSuchSession."""
        session = self._table.get(session_id)
        if session.running is None:
            return False
        self._runner.stop(session, session.running)
        return True

    async def admin_close(self, session_id: str) -> None:
        """End a session, whoever's it is. Raises NoSuchSession."""
        await self._end(self._table.get(session_id), "closed")

    async def measure(self) -> list[SessionMeasured]:
        """What every session uses now; one that cannot be measured is left out."""

        few = asyncio.Semaphore(_MEASURED_AT_ONCE)

        async def of(session: Session) -> SessionMeasured | None:
            try:
                async with few:
                    stats = await self._running_backend().stats(session.ref)
            except ExecutorError:
                return None  # it has ended, or is about to be found dead
            return SessionMeasured(
                session_id=session.id,
                owner=session.owner,
                memory=stats.memory,
                processes=stats.processes,
                folder_bytes=stats.folder_bytes,
            )

        measured = await asyncio.gather(*(of(session) for session in self._table.all()))
        return [one for one in measured if one is not None]

    # Packages

    async def install_packages(
        self,
        packages: Sequence[str],
        *,
        language: str,
        owner: str,
        conversation: str | None = None,
        session_id: str | None = None,
        progress: Callable[[str], None] = lambda _: None,
    ) -> PackageReport:
        """Install packages by name into a session, importable at once; `progress` hears sentences meanwhile.

        Without `session_id` it is the conversation's own session, or without a conversation a fresh one. A package that
        cannot be had is a refusal in the report, the others are installed. Cancelling ends it without a trace.
        """
        ecosystem = self._installer.check(packages, language)
        session = await self._target(session_id, owner, conversation)
        try:
            session.touch()
            return await self._installer.install(session.ref, packages, ecosystem, owner=owner, progress=progress)
        finally:
            session.touch()

    # Inside: sessions

    def _running_backend(self) -> Backend:
        if self._backend is None or self._sandbox is None:
            raise BackendFailed("The executor has not been started.")
        return self._backend

    @property
    def _runner(self) -> Runner:
        if self._runner_or_none is None:
            raise BackendFailed("The executor has not been started.")
        return self._runner_or_none

    @property
    def _installer(self) -> Installer:
        if self._installer_or_none is None:
            raise BackendFailed("The executor has not been started.")
        return self._installer_or_none

    def _find(self, session_id: str, owner: str, conversation: str | None) -> Session:
        session = self._table.find(session_id, owner, conversation)
        if not self._running_backend().alive(session.ref):
            self._tasks.own(self._end(session, "failed"))
            self._table.remove(session, "failed")
            return self._table.find(session_id, owner, conversation)  # raises, and says why it ended
        return session

    async def _target(self, session_id: str | None, owner: str, conversation: str | None) -> Session:
        """The session that is named, else the conversation's own, else a fresh one."""
        if session_id is not None:
            return self._find(session_id, owner, conversation)
        if conversation is not None:
            return await self._own_session(owner, conversation)
        return await self._create(owner, None, own=False)

    async def _own_session(self, owner: str, conversation: str) -> Session:
        session = self._table.of_conversation(owner, conversation)
        if session is not None:
            if self._running_backend().alive(session.ref):
                return session
            await self._end(session, "failed")
        key = owner, conversation
        making = self._making.get(key)
        if making is None:
            making = self._tasks.own(self._create(owner, conversation, own=True))
            self._making[key] = making
            making.add_done_callback(lambda _: self._making.pop(key, None))
        # two first calls of a conversation share one session; neither going away takes it from the other
        return await asyncio.shield(making)

    async def _create(self, owner: str, conversation: str | None, *, own: bool) -> Session:
        if self.sandbox.level == "weak" and not self.settings.allow_weak_sandbox:
            raise SandboxTooWeak(
                "This host cannot hold hostile code, so nothing is executed here. Missing: "
                + " ".join(self.sandbox.missing())
                + " ALLOW_WEAK_SANDBOX=1 executes all the same: every user can then reach the others' files."
            )
        began = time.monotonic()
        victim = self._table.reserve()
        try:
            if victim is not None:
                await self._end(victim, "evicted")
            session_id = new_id()
            ref = await self._running_backend().create(SessionSpec(session_id))
        except BaseException:
            self._table.release()
            raise
        session = Session(
            id=session_id,
            owner=owner,
            conversation=conversation,
            ref=ref,
            history=deque(maxlen=self.settings.history_entries),
        )
        self._table.add(session, own=own)
        self.bus.publish(SessionOpened(session_id=session.id, owner=owner, seconds=time.monotonic() - began))
        return session

    async def _end(self, session: Session, reason: EndReason) -> None:
        if self._table.remove(session, reason):
            self._say_closed(session, reason)
        self._installer.forget(session.id)
        await self._running_backend().close(session.ref)

    def _say_closed(self, session: Session, reason: EndReason) -> None:
        age = time.time() - session.created_at
        self.bus.publish(SessionClosed(session_id=session.id, owner=session.owner, reason=reason, age=max(0.0, age)))

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_EVERY, self.settings.session_ttl / 4))
            try:
                await self._sweep()
            except ExecutorError as error:
                self.bus.publish(Fault(where="sweep", detail=str(error)))

    async def _sweep(self) -> None:
        oldest = time.monotonic() - self.settings.session_ttl
        for session in self._table.all():
            if session.busy:
                continue
            if not self._running_backend().alive(session.ref):
                await self._end(session, "failed")
            elif session.touched < oldest:
                await self._end(session, "expired")

    # Inside: executions

    async def _submit(
        self,
        code: str,
        language: str,
        owner: str,
        conversation: str | None,
        session_id: str | None,
        timeout: float | None,
    ) -> tuple[Session, Run]:
        request = check_request(code, language, timeout, self.settings)
        session = await self._target(session_id, owner, conversation)
        return session, self._runner.submit(session, request)
