"""The tools that make, show and end sessions, and tell what is in one: history, variables, the system round it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from executor.results import SessionInfo
from space import schemas
from space.content import Answer, history_data, iso, json_answer, session_data
from space.identity import Caller
from space.system import system_info
from space.toolbox import DESTROYS, READS, SESSION_ID, Arguments, Hints, Tool, Toolbox
from space.variables import known_variables
from space.wording import clean, middle_cut

_NEEDED_ID: dict[str, Any] = {"type": "string"}


async def create_execution_session(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    session = await box.executor.create_session(owner=caller.owner, conversation=caller.conversation)
    data = {"session_id": session.id, "created_at": iso(session.created_at)}
    return json_answer(data, session_id=session.id)


async def list_execution_sessions(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    sessions: list[SessionInfo] = []
    data: dict[str, Any] = {}
    if caller.identified:
        sessions = box.executor.list_sessions(owner=caller.owner, conversation=caller.conversation)
    else:
        data["note"] = (
            f"Without the header {caller.missing[0]} users cannot be told apart, so no session is listed; "
            "one is reached by its session_id alone."
        )
    listed = [session_data(session) for session in sessions]
    return json_answer({"sessions": listed, "count": len(listed), "timestamp": iso(time.time()), **data})


async def get_execution_history(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    session_id = values["session_id"]
    session = box.executor.session(session_id, owner=caller.owner, conversation=caller.conversation)
    entries = await box.executor.history(session_id, owner=caller.owner, conversation=caller.conversation)
    history, omitted = history_data(entries, budget=box.settings.max_result_chars - 500)
    data = {"session_id": session_id, "history": history, "created_at": iso(session.created_at)}
    if omitted:
        data["omitted"] = omitted
    return json_answer(data, session_id=session_id)


async def list_variables(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    session_id = await box.session_id(caller, values["session_id"])
    entries = await box.executor.history(session_id, owner=caller.owner, conversation=caller.conversation)
    # a stored session's may be from a time when they were told
    variables = known_variables(entries) if box.settings.show_variables else []
    lines = [f"{v.name}: {v.type} {v.summary}".rstrip() for v in variables]
    if not box.settings.show_variables:
        lines = ["This server does not tell variables (SHOW_VARIABLES is off); print(dir()) does."]
    elif not lines:
        lines = ["No Python variables are known in this session yet."]
    told = middle_cut("\n".join(lines), box.settings.max_result_chars // 2)
    listed = [{"name": v.name, "type": v.type, "summary": v.summary} for v in variables]
    return Answer(
        texts=(clean(f"{told}\nsession_id: {session_id}"),),
        structured=clean({"session_id": session_id, "variables": listed}),
        session_id=session_id,
    )


async def get_system_info(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    # reads files for the versions, the first time
    return json_answer(await asyncio.to_thread(system_info, box.settings, box.executor.sandbox))


async def close_execution_session(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    session_id = values["session_id"]
    await box.executor.close_session(session_id, owner=caller.owner, conversation=caller.conversation)
    return Answer(
        texts=(f"Session {session_id} is closed; its variables and files are gone.",),
        structured={"session_id": session_id, "closed": True},
        session_id=session_id,
    )


async def interrupt_execution(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    session_id = await box.session_id(caller, values["session_id"])
    stopped = await box.executor.interrupt(
        session_id=session_id,
        owner=caller.owner,
        conversation=caller.conversation,
        execution_id=values["execution_id"],
    )
    text = (
        "The running code was interrupted; its call ends with what it printed." if stopped else "No code was running."
    )
    return Answer(
        texts=(f"{text}\nsession_id: {session_id}",),
        structured={"session_id": session_id, "interrupted": stopped},
        session_id=session_id,
    )


def session_tools() -> tuple[Tool, ...]:
    """The tools for sessions."""
    return (
        Tool(
            name="create_execution_session",
            title="New session",
            description="Make a further session with an empty folder and fresh interpreters. Seldom needed: the "
            "execute tools have a session by themselves.",
            properties={},
            output=schemas.SESSION,
            run=create_execution_session,
        ),
        Tool(
            name="list_execution_sessions",
            title="List sessions",
            description="List this conversation's sessions, live and parked.",
            properties={},
            output=schemas.SESSIONS,
            run=list_execution_sessions,
            hints=READS,
        ),
        Tool(
            name="get_execution_history",
            title="Session history",
            description="What was run in a session: code and results, oldest first.",
            properties={"session_id": _NEEDED_ID},
            required=("session_id",),
            output=schemas.HISTORY,
            run=get_execution_history,
            hints=READS,
        ),
        Tool(
            name="list_variables",
            title="List variables",
            description="All Python variables of a session by type and size, newest first; runs no code.",
            properties={"session_id": SESSION_ID},
            output=schemas.VARIABLES,
            run=list_variables,
            hints=READS,
        ),
        Tool(
            name="get_system_info",
            title="System info",
            description="Versions, installed packages, limits, isolation.",
            properties={},
            output=schemas.SYSTEM,
            run=get_system_info,
            hints=READS,
        ),
        Tool(
            name="close_execution_session",
            title="Close session",
            description="End a session; its variables and files are deleted.",
            properties={"session_id": _NEEDED_ID},
            required=("session_id",),
            output=schemas.CLOSED,
            run=close_execution_session,
            hints=DESTROYS,
        ),
        Tool(
            name="interrupt_execution",
            title="Interrupt",
            description="Stop the code that runs in a session; variables stay.",
            properties={
                "session_id": SESSION_ID,
                "execution_id": {"type": "string", "description": "Stop only this one."},
            },
            output=schemas.INTERRUPTED,
            run=interrupt_execution,
            hints=Hints(idempotent=True),
        ),
    )
