"""Runner: the life of an execution, from its place in the queue of its session to what is remembered of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from executor import policy
from executor.backend import Backend, Displayed, Finished, Printed
from executor.cells import Cells
from executor.errors import BackendFailed, Busy, ExecutorError
from executor.events import Bus, ExecutionFinished, ExecutionStarted, ViolationFound, WorkerReplaced
from executor.request import Request
from executor.results import ExecutionResult, Violation
from executor.sessions import Run, Session, new_id
from executor.tasks import Tasks

PolicyLevel = Literal["strict", "standard", "off"]

QUICK_POLICY = 20_000
"""Characters of code up to which the policy is read on the event loop; more goes to a thread."""


class Runner:
    """Runs code in sessions, one execution a session at a time, whoever waits for it."""

    def __init__(
        self,
        backend: Backend,
        *,
        cells: Cells,
        queue_wait: float,
        bus: Bus,
        tasks: Tasks,
        level: PolicyLevel,
        rested: Callable[[str], None],
    ) -> None:
        """`queue_wait`: seconds that an execution waits for its turn among all sessions'. `rested` is told the owner of
        each one that has ended."""
        self._backend = backend
        self._cells = cells
        self._queue_wait = queue_wait
        self._bus = bus
        self._tasks = tasks
        self._level = level
        self._rested = rested

    def submit(self, session: Session, request: Request) -> Run:
        """Queue code; its task is ours, so it lives on when the caller goes. Raises Busy."""
        run = Run(id=new_id(), language=request.language, code=request.code, timeout=request.timeout)
        session.add_run(run)
        session.waiting += 1
        run.task = self._tasks.own(self._run(session, run))
        return run

    def stop(self, session: Session, run: Run) -> None:
        """Interrupt an execution, or take it out of the queue; nothing happens where it has ended."""
        if run.finished is None:
            # in a task, which begins after the execution's own: one that is cancelled before its first step never ends
            self._tasks.own(self._stop(session, run))

    async def so_far(self, session: Session, run: Run) -> ExecutionResult:
        """The result of an execution, or `running` with what it gave up to now.

        A running one comes without its pictures: they are in the result at its end.
        """
        printed = Printed("", "")
        if run.finished is None and run.started_at is not None:
            printed = await self._backend.printed(session.live_ref, run.id)
        if run.finished is not None:
            return run.finished.result
        seconds = 0.0 if run.started_at is None else time.monotonic() - run.started_at
        said = (
            f"It has run for {seconds:.0f} s of its {run.timeout:g} s."
            if run.started_at is not None
            else "It has not begun yet: other code runs in this session."
        )
        outputs = tuple(output for output in run.displayed if output.picture is None)
        if drawn := len(run.displayed) - len(outputs):
            said += f" {drawn} picture{'s' * (drawn > 1)} so far will come with the end."
        return ExecutionResult(
            status="running",
            session_id=session.id,
            execution_id=run.id,
            language=run.language,
            stdout=printed.stdout,
            stderr=printed.stderr,
            execution_time=seconds,
            outputs=outputs,
            notices=(f"{said} Wait for more with get_execution_result, or stop it with interrupt_execution.",),
        )

    async def _stop(self, session: Session, run: Run) -> None:
        if run.finished is not None or run.task is None:
            return
        if not (session.running is run and run.admitted):
            run.task.cancel()
            return
        await run.started.wait()
        if run.finished is None:
            await self._backend.interrupt(session.live_ref, run.id)

    async def _run(self, session: Session, run: Run) -> ExecutionResult:
        """The whole life of one execution; a task of ours, whoever waits for it."""
        started = time.time()
        try:
            try:
                await session.turn.acquire()
            finally:
                session.waiting -= 1
            session.running = run
            try:
                violations = await self._violations(run)
                if blocked := self._blocked(session, run, violations):
                    run.admitted = True
                    started = self._say_started(session, run)
                    finished = blocked
                else:
                    async with self._cells.turn(session.owner, time.monotonic() + self._queue_wait):
                        run.admitted = True
                        started = self._say_started(session, run)
                        finished = await self._carry_out(session, run)
            finally:
                session.running = None
                session.turn.release()
        except asyncio.CancelledError:
            # only `stop` cancels, and only what still waits for its turn
            finished = Finished(self._result(session, run, "interrupted", "It was interrupted before it began."))
        except Busy as busy:
            finished = Finished(self._result(session, run, "interrupted", f"Nothing was run. {busy}"))
        except ExecutorError as error:
            finished = Finished(self._result(session, run, "lost", str(error)))
        if finished.result.status == "lost":
            finished = _with_notice(finished, session.what_is_left())
        if run.admitted and (told := (*session.notices, *session.returned)):  # who waited in vain may be gone
            notices = (*told, *finished.result.notices)
            session.notices.clear()
            session.returned = []
            finished = replace(finished, result=replace(finished.result, notices=notices))
        run.finished = finished
        run.displayed.clear()
        run.started.set()
        session.executions += 1
        session.touch()
        session.remember(run, finished.result, started)
        session.change()
        self._say_finished(session, finished)
        self._rested(session.owner)
        return finished.result

    async def _carry_out(self, session: Session, run: Run) -> Finished:
        ref = session.live_ref
        await self._backend.start(ref, run.language, run.code, run.id, run.timeout)
        session.numbers[run.language] = session.numbers.get(run.language, 0) + 1
        session.change()
        run.started_at = time.monotonic()
        run.started.set()
        async for event in self._backend.attach(ref, run.id):
            if isinstance(event, Finished):
                return event
            if isinstance(event, Displayed):
                run.displayed.append(event.output)
        raise BackendFailed("The execution ended without a result; what it did is unknown.")

    async def _violations(self, run: Run) -> tuple[Violation, ...]:
        level = self._level
        if level == "off":
            return ()
        if len(run.code) <= QUICK_POLICY:
            return policy.check(run.code, run.language, level)
        return await asyncio.to_thread(policy.check, run.code, run.language, level)

    def _blocked(self, session: Session, run: Run, violations: tuple[Violation, ...]) -> Finished | None:
        if not violations:
            return None
        said = "Nothing was run: the code was refused by the rules named here."
        return Finished(replace(self._result(session, run, "blocked", said), return_code=1, violations=violations))

    def _result(
        self, session: Session, run: Run, status: Literal["blocked", "interrupted", "lost"], why: str
    ) -> ExecutionResult:
        return ExecutionResult(
            status=status, session_id=session.id, execution_id=run.id, language=run.language, notices=(why,)
        )

    def _say_started(self, session: Session, run: Run) -> float:
        """Seconds since 1970, now."""
        self._bus.publish(
            ExecutionStarted(
                session_id=session.id,
                owner=session.owner,
                execution_id=run.id,
                language=run.language,
                code=run.code,
                queued=time.monotonic() - run.queued_at,
            )
        )
        return time.time()

    def _say_finished(self, session: Session, finished: Finished) -> None:
        result = finished.result
        pictures = [output.picture for output in result.outputs if output.picture]
        for violation in result.violations:
            self._bus.publish(
                ViolationFound(
                    session_id=session.id,
                    owner=session.owner,
                    execution_id=result.execution_id,
                    language=result.language,
                    violation=violation,
                )
            )
        if finished.replaced is not None:
            self._bus.publish(
                WorkerReplaced(
                    session_id=session.id, owner=session.owner, language=result.language, cause=finished.replaced
                )
            )
        self._bus.publish(
            ExecutionFinished(
                session_id=session.id,
                owner=session.owner,
                execution_id=result.execution_id,
                language=result.language,
                status=result.status,
                seconds=result.execution_time,
                return_code=result.return_code,
                stdout_chars=len(result.stdout),
                stderr_chars=len(result.stderr),
                truncated=result.truncated,
                pictures=len(pictures),
                picture_chars=sum(len(picture.data) for picture in pictures),
                files=len(result.files),
                limits=finished.limits,
            )
        )


def _with_notice(finished: Finished, notice: str) -> Finished:
    return replace(finished, result=replace(finished.result, notices=(*finished.result.notices, notice)))
