"""Visitor: whose sessions a page shows, and which of them it may reach."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any

from executor import Executor, NoSuchSession, SessionInfo
from space.identity import PAGE_PREFIX
from space.links import Grant, LinkRefused, Links

CONVERSATION = "page"
NOT_OPENED = "The server does not know this page (any more): it was restarted, perhaps. Reload the page."

_KEY = re.compile(r"[0-9a-f]{32,128}")


@dataclass(frozen=True, slots=True)
class Visitor:
    """The owner and conversation that a page speaks for.

    `known` names the only sessions it may reach, in the order of their making, where owner and conversation do not
    tell one person from another; None where they do. `granted` is the session that the page's link was made for.
    """

    owner: str
    conversation: str | None
    known: tuple[str, ...] | None = None
    granted: str = ""

    def caller(self) -> dict[str, Any]:
        """What every call of the executor asks for."""
        return {"owner": self.owner, "conversation": self.conversation}

    def sessions(self, executor: Executor) -> list[SessionInfo]:
        """The live sessions of this page, oldest first."""
        if self.known is None:
            return executor.list_sessions(**self.caller())
        found = []
        for session_id in self.known:
            try:
                found.append(executor.session(session_id, **self.caller()))
            except NoSuchSession:
                continue
        return found

    def may_reach(self, session_id: object) -> bool:
        """Whether the page may use that session, as far as can be told here; the executor checks the owner."""
        return isinstance(session_id, str) and (self.known is None or session_id in self.known)

    def with_session(self, session_id: str) -> Visitor:
        """The same visitor, who has made one more session."""
        return self if self.known is None else replace(self, known=(*self.known, session_id))

    def grant(self, session_id: str) -> Grant:
        """What a link to something of that session must be made with."""
        return Grant(self.owner, self.conversation, session_id)


def visitor_of(links: Links, token: str, key: str) -> tuple[Visitor | None, str]:
    """The visitor for a page opened with `token` in its address (empty: none), and a sentence where that was no good.

    `key` is the random name that the page gave itself, kept for as long as its tab is open: a reload finds its
    sessions again. Whoever knows it reaches them; None where it is too short to be one.
    """
    sentence = ""
    if token:
        try:
            grant = links.open_session(token)
        except LinkRefused as refused:
            sentence = f"{refused} This page has a session of its own instead."
        else:
            known = (grant.session_id,) if grant.conversation is None else None
            return Visitor(grant.owner, grant.conversation, known, grant.session_id), ""
    if not _KEY.fullmatch(key):
        return None, NOT_OPENED
    # the owner stands in logs as a pseudonym, and never goes back to a browser; still, the key itself is not kept
    name = hashlib.sha256(b"page " + key.encode()).hexdigest()[:32]
    return Visitor(PAGE_PREFIX + name, CONVERSATION), sentence
