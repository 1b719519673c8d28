"""The tool that gives a person the page on this very session."""

from __future__ import annotations

import time

from executor.errors import InvalidRequest
from space import schemas
from space.content import Answer, iso
from space.identity import Caller
from space.toolbox import SESSION_ID, Arguments, Hints, Tool, Toolbox, session_note


async def open_session_page(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    links, named = box.links, values["session_id"]
    if not links.base:
        raise InvalidRequest(
            "this server does not know its own address, so it can give no link; its operator can set PUBLIC_BASE_URL. "
            "Files go in with upload_file and out with download_file."
        )
    if not named and caller.conversation is None:
        session_id = (await box.executor.create_session(owner=caller.owner, conversation=None)).id
    else:
        session_id = await box.session_id(caller, named)
        # a link is only made for a session that is the caller's
        box.executor.session(session_id, owner=caller.owner, conversation=caller.conversation)
    grant = box.grant(caller, session_id)
    url, upload = links.absolute(links.page(grant)), links.absolute(links.folder(grant))
    lines = [
        f"Page of this session: {url}",
        "Give this link to the user. There they can drop in files, which the next call finds in the session's folder, "
        "and see all files, full-size pictures and variables. It works as long as the session lives. "
        f"{links.page_note}",
        f"From a terminal: curl -T data.csv {upload}/",
        f"session_id: {session_id}{session_note(caller, named)}",
    ]
    structured = {
        "session_id": session_id,
        "url": url,
        "upload_url": upload,
        "expires": iso(time.time() + box.settings.link_ttl),
    }
    return Answer(texts=("\n".join(line.rstrip() for line in lines),), structured=structured, session_id=session_id)


def page_tools() -> tuple[Tool, ...]:
    """The tools for the page."""
    return (
        Tool(
            name="open_session_page",
            title="Open page",
            description="Get a link for the user to a page on this session. Use it when they want to bring in a file "
            "of theirs, or to see or download what is there.",
            properties={"session_id": SESSION_ID},
            output=schemas.PAGE,
            run=open_session_page,
            hints=Hints(idempotent=True),
        ),
    )
