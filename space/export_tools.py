"""The tool that gives a person the whole session to take along: as a notebook, or with all its files."""

from __future__ import annotations

from executor.errors import InvalidRequest
from space import schemas
from space.content import Answer, size_words
from space.identity import Caller
from space.notebook import pictures_in
from space.toolbox import READS, SESSION_ID, Arguments, Tool, Toolbox


async def export_session(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    links = box.links
    session_id = await box.session_id(caller, values["session_id"])
    entries = await box.executor.history(session_id, owner=caller.owner, conversation=caller.conversation)
    files = await box.executor.list_files(session_id, owner=caller.owner, conversation=caller.conversation)
    if not entries and (not files or values["format"] == "ipynb"):
        raise InvalidRequest("nothing has run in this session yet, so there is nothing to export.")
    if not links.base:
        raise InvalidRequest(
            "this server does not know its own address, so it can give no link; its operator can set PUBLIC_BASE_URL. "
            "Whoever has the page open finds both downloads in its tab History."
        )
    grant = box.grant(caller, session_id)
    cells = _count(len(entries), "cell")
    if values["format"] == "ipynb":
        url = links.absolute(links.notebook(grant))
        what = f"Jupyter notebook with {cells} and {_count(pictures_in(entries), 'picture')}"
    else:
        url = links.absolute(links.export(grant))
        size = sum(file.size for file in files)
        what = f"zip with {_count(len(files), 'file')} ({size_words(size)}) and a Jupyter notebook of {cells}"
    lines = [
        f"{what}: {url}",
        f"Give this link to the user. It holds what the session holds when it is followed. {links.note}".rstrip(),
        f"session_id: {session_id}",
    ]
    structured = {"session_id": session_id, "format": values["format"], "url": url, "cells": len(entries)}
    return Answer(texts=("\n".join(lines),), structured=structured, session_id=session_id)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def export_tools() -> tuple[Tool, ...]:
    """The tools for taking a session along."""
    return (
        Tool(
            name="export_session",
            title="Export session",
            description="Get a download link for the user to this session as a Jupyter notebook (code, outputs, "
            "pictures), or as a zip with all files and that notebook.",
            properties={
                "format": {"type": "string", "enum": ["ipynb", "zip"], "default": "ipynb"},
                "session_id": SESSION_ID,
            },
            output=schemas.EXPORT,
            run=export_session,
            hints=READS,
        ),
    )
