"""Script: the events of ordinary calls, as the executor and the Space publish them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from executor import events
from executor.results import Language, Status, Violation

CODE = "import numpy as np\nvalues = np.arange(10)\nprint(values.mean())\n"


def opened(*, session_id: str = "session-0", owner: str = "owner-0", seconds: float = 0.01) -> events.SessionOpened:
    return events.SessionOpened(session_id=session_id, owner=owner, seconds=seconds)


def closed(
    *,
    session_id: str = "session-0",
    owner: str = "owner-0",
    reason: Literal["closed", "expired", "evicted", "failed", "shutdown"] = "closed",
) -> events.SessionClosed:
    return events.SessionClosed(session_id=session_id, owner=owner, reason=reason, age=12.5)


def started(
    number: int,
    *,
    session_id: str = "session-0",
    owner: str = "owner-0",
    language: Language = "python",
    code: str = CODE,
    queued: float = 0.0,
) -> events.ExecutionStarted:
    return events.ExecutionStarted(
        session_id=session_id,
        owner=owner,
        execution_id=f"execution-{number:08}",
        language=language,
        code=code,
        queued=queued,
    )


def finished(
    number: int,
    *,
    session_id: str = "session-0",
    owner: str = "owner-0",
    language: Language = "python",
    status: Status = "ok",
    seconds: float = 0.004,
    limits: tuple[str, ...] = (),
    pictures: int = 0,
    picture_chars: int = 0,
) -> events.ExecutionFinished:
    return events.ExecutionFinished(
        session_id=session_id,
        owner=owner,
        execution_id=f"execution-{number:08}",
        language=language,
        status=status,
        seconds=seconds,
        return_code=0 if status == "ok" else 1,
        stdout_chars=120,
        stderr_chars=0,
        truncated=False,
        pictures=pictures,
        picture_chars=picture_chars,
        files=0,
        limits=limits,
    )


def called(
    *,
    tool: str = "execute_python_code",
    request_id: str = "request-0",
    session_id: str = "session-0",
    owner: str = "owner-0",
    outcome: Literal["ok", "error", "cancelled", "fault"] = "ok",
    identified: bool = True,
) -> events.ToolCalled:
    return events.ToolCalled(
        tool=tool,
        request_id=request_id,
        transport="sse",
        outcome=outcome,
        owner=owner,
        identified=identified,
        session_id=session_id,
        seconds=0.006,
    )


def execution(
    number: int,
    *,
    session_id: str = "session-0",
    owner: str = "owner-0",
    language: Language = "python",
    status: Status = "ok",
    code: str = CODE,
) -> Iterator[events.Event]:
    """The three events of one call that runs code."""
    tool, request = f"execute_{language}_code", f"request-{number:08}"
    with events.during(request, tool):
        yield started(number, session_id=session_id, owner=owner, language=language, code=code)
        yield finished(number, session_id=session_id, owner=owner, language=language, status=status)
    yield called(tool=tool, request_id=request, session_id=session_id, owner=owner)


def violated(
    *,
    rule: str = "process-spawn",
    layer: Literal["policy", "sandbox"] = "policy",
    owner: str = "owner-0",
    language: Language = "python",
) -> events.ViolationFound:
    return events.ViolationFound(
        session_id="session-0",
        owner=owner,
        execution_id="execution-00000000",
        language=language,
        violation=Violation(rule=rule, message="subprocess.run is not allowed here", layer=layer),
    )
