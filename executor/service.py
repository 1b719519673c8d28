"""Executor: the façade. Checks the request, finds the caller's session, and hands on to whoever does the work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from typing import Self

from executor import policy
from executor.backend import Backend, ExecutionEvent, Finished, SessionStats
from executor.errors import BackendFailed
from executor.events import Bus, FileTransferred, SandboxProbed, SessionMeasured
from executor.measuring import measure
from executor.packages.report import PackageReport
from executor.parts import Parts, assemble
from executor.request import check_request
from executor.results import ExecutionResult, FileInfo, HistoryEntry, SessionInfo
from executor.runner import PolicyLevel
from executor.sandbox.report import SandboxReport
from executor.sessions import Run, Session
from executor.settings import Settings
from executor.tasks import Tasks

PARK_SECONDS = 8.0
"""Seconds in which every session must be saved when the server stops; a Space gives little more."""

STOP_SECONDS = 1.0
"""Seconds beyond the grace in which executions must have stopped before that."""


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
        self._tasks = Tasks(self.bus)
        self._parts: Parts | None = None
        self._closed = False

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
        sandbox = await self._backend.open(self.bus.publish, self._make_room)
        await asyncio.to_thread(policy.load)
        self._parts = await assemble(self.settings, self._backend, sandbox, bus=self.bus, tasks=self._tasks)
        layers = {name: (layer.on, layer.why) for name, layer in sandbox.layers.items()}
        self.bus.publish(SandboxProbed(level=sandbox.level, layers=layers))

    async def aclose(self) -> None:
        """Park every session, or where that cannot be, end it. Idempotent."""
        parts = self._parts
        if parts is not None and not self._closed:
            self._closed = True
            await parts.installer.aclose()
            await self._stop_runs(parts)
            await parts.keeper.aclose(PARK_SECONDS)
            if parts.snapshots is not None:
                await parts.snapshots.aclose()
        if self._backend is not None:
            await self._backend.aclose()
        await self._tasks.join(timeout=5)

    async def _stop_runs(self, parts: Parts) -> None:
        """Interrupt what runs, so that its session can be saved as of now."""
        runs = []
        for session in parts.keeper.table.live():
            for run in session.runs.values():
                if run.finished is None and run.task is not None:
                    parts.runner.stop(session, run)
                    runs.append(run.task)
        if runs:
            await asyncio.wait(runs, timeout=self.settings.interrupt_grace + STOP_SECONDS)

    async def _make_room(self) -> bool:
        return self._parts is not None and await self._parts.parking.make_room()

    @property
    def sandbox(self) -> SandboxReport:
        """How well code is held here; known once started."""
        return self._up.sandbox

    @property
    def policy_level(self) -> PolicyLevel:
        """The level in force: `auto` is `standard` where the sandbox holds, `strict` where it is weak."""
        return self._up.policy_level

    # Sessions

    async def create_session(self, *, owner: str, conversation: str | None = None) -> SessionInfo:
        """A new session, beside any that the caller has. Raises Busy where every place is at work."""
        return (await self._up.keeper.create(owner, conversation)).info()

    async def session_for(self, *, owner: str, conversation: str) -> SessionInfo:
        """The conversation's own session, made on first use."""
        return (await self._up.keeper.own_session(owner, conversation)).info()

    def session(self, session_id: str, *, owner: str, conversation: str | None = None) -> SessionInfo:
        """What is known of a session."""
        return self._up.keeper.table.find(session_id, owner, conversation).info()

    def list_sessions(self, *, owner: str, conversation: str | None = None) -> list[SessionInfo]:
        """The caller's sessions, oldest first."""
        return [session.info() for session in self._up.keeper.table.of(owner, conversation)]

    def all_sessions(self) -> list[SessionInfo]:
        """Every session, for the operator."""
        return [session.info() for session in self._up.keeper.table.all()]

    def known(self) -> Iterator[tuple[str, str | None, str]]:
        """Owner, conversation and id of every session, live and parked: for whoever has given out rights to them."""
        for session in self._up.keeper.table.all():
            yield session.owner, session.conversation, session.id

    async def history(self, session_id: str, *, owner: str, conversation: str | None = None) -> list[HistoryEntry]:
        """What ran in a session, oldest first, at most `HISTORY_ENTRIES`; without the bytes of pictures."""
        session = self._up.keeper.table.find(session_id, owner, conversation)
        if session.ref is None and self._up.snapshots is not None:
            return await self._up.snapshots.history(session)
        return list(session.history)

    async def stats(self, session_id: str, *, owner: str, conversation: str | None = None) -> SessionStats:
        """What a session uses now; nothing while it is parked."""
        session = self._up.keeper.table.find(session_id, owner, conversation)
        if session.ref is None:
            return SessionStats(memory=0, processes=0, threads=0, folder_bytes=0, folder_files=0)
        return await self._up.backend.stats(session.ref)

    async def close_session(self, session_id: str, *, owner: str, conversation: str | None = None) -> None:
        """End a session with all its processes, variables and files."""
        await self._up.parking.end(self._up.keeper.table.find(session_id, owner, conversation), "closed")

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
            result = await asyncio.shield(run.task)
        except asyncio.CancelledError:
            self._up.runner.stop(session, run)
            raise
        run.told = True
        return result

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
        session = self._up.keeper.table.find(session_id, owner, conversation)
        run = session.run(execution_id)
        if run.finished is None:
            await run.started.wait()
        if run.finished is None:
            async for event in self._up.backend.attach(session.live_ref, execution_id):
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
        session = self._up.keeper.table.find(session_id, owner, conversation)
        session.touch()
        run = session.run(execution_id)
        if run.finished is None and run.task is not None:
            await asyncio.wait([run.task], timeout=patience)
            run.detached = run.finished is None
        result = await self._up.runner.so_far(session, run)
        run.told = run.finished is not None
        return result

    async def so_far(
        self, *, session_id: str, owner: str, conversation: str | None = None, execution_id: str | None = None
    ) -> ExecutionResult:
        """As `wait`, but at once and without detaching."""
        session = self._up.keeper.table.find(session_id, owner, conversation)
        return await self._up.runner.so_far(session, session.run(execution_id))

    async def interrupt(
        self, *, session_id: str, owner: str, conversation: str | None = None, execution_id: str | None = None
    ) -> bool:
        """Stop what runs in a session, or else waits first, or one execution of it; False where there was none."""
        session = self._up.keeper.table.find(session_id, owner, conversation)
        run = session.run(execution_id) if execution_id else session.current()
        if run is None or run.finished is not None:
            return False
        session.touch()
        # it ends in a moment, so that code may queue behind it again
        run.detached = False
        self._up.runner.stop(session, run)
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
        self._up.quotas.admit_call(owner)
        self._up.quotas.admit_disk(owner)
        async with self._up.keeper.use(session_id, owner, conversation) as session:
            info = await self._up.backend.put_file(session.live_ref, path, chunks)
            session.change()
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
        async with self._up.keeper.use(session_id, owner, conversation) as session:
            session.touch()
            size = 0
            try:
                async for data in self._up.backend.get_file(session.live_ref, path, offset=offset, length=length):
                    size += len(data)
                    yield data
            finally:
                self.bus.publish(FileTransferred(session_id=session.id, owner=owner, action="get", size=size))

    async def file_info(self, session_id: str, path: str, *, owner: str, conversation: str | None = None) -> FileInfo:
        """Size and time of one file, hidden ones included. Raises NoSuchFile or FileRefused."""
        async with self._up.keeper.use(session_id, owner, conversation) as session:
            return await self._up.backend.file_info(session.live_ref, path)

    async def list_files(self, session_id: str, *, owner: str, conversation: str | None = None) -> list[FileInfo]:
        """The files of a session's folder, sorted by path."""
        async with self._up.keeper.use(session_id, owner, conversation) as session:
            return await self._up.backend.list_files(session.live_ref)

    async def move_file(
        self, session_id: str, path: str, target: str, *, owner: str, conversation: str | None = None
    ) -> FileInfo:
        """Rename a file of a session."""
        async with self._up.keeper.use(session_id, owner, conversation) as session:
            info = await self._up.backend.move_file(session.live_ref, path, target)
            session.change()
        self.bus.publish(FileTransferred(session_id=session.id, owner=owner, action="move", size=info.size))
        return info

    async def delete_file(self, session_id: str, path: str, *, owner: str, conversation: str | None = None) -> None:
        """Delete a file or folder of a session."""
        async with self._up.keeper.use(session_id, owner, conversation) as session:
            await self._up.backend.delete_file(session.live_ref, path)
            session.change()
        self.bus.publish(FileTransferred(session_id=session.id, owner=owner, action="delete", size=0))

    # For the operator, who is no owner: whoever offers these to anybody must have checked that first

    async def admin_interrupt(self, session_id: str) -> bool:
        """Stop what runs or waits first in a session, whoever's it is; False where nothing did. Raises
        NoSuchSession."""
        session = self._up.keeper.table.get(session_id)
        if (run := session.current()) is None:
            return False
        self._up.runner.stop(session, run)
        return True

    async def admin_close(self, session_id: str) -> None:
        """End a session, whoever's it is. Raises NoSuchSession."""
        await self._up.parking.end(self._up.keeper.table.get(session_id), "closed")

    async def measure(self) -> list[SessionMeasured]:
        """What every session uses now; one that cannot be measured is left out. Nothing before the start."""
        return [] if self._parts is None else await measure(self._parts)

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
        ecosystem = self._up.installer.check(packages, language)
        self._up.quotas.admit_call(owner)
        self._up.quotas.admit_disk(owner)
        async with self._up.keeper.use_target(session_id, owner, conversation) as session:
            try:
                session.touch()
                return await self._up.installer.install(
                    session.live_ref, packages, ecosystem, shelves=session.packages, owner=owner, progress=progress
                )
            finally:
                session.change()
                session.touch()

    # Inside

    @property
    def _up(self) -> Parts:
        if self._parts is None:
            raise BackendFailed("The executor has not been started.")
        return self._parts

    async def _submit(
        self,
        code: str,
        language: str,
        owner: str,
        conversation: str | None,
        session_id: str | None,
        timeout: float | None,
    ) -> tuple[Session, Run]:
        self._up.quotas.admit_call(owner)
        request = check_request(code, language, timeout, self.settings)
        async with self._up.keeper.use_target(session_id, owner, conversation) as session:
            return session, self._up.runner.submit(session, request)
