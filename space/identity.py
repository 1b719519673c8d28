"""Who calls: from the headers that LibreChat sends to an owner and a conversation."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass

from executor.owners import ANONYMOUS, SINGLE_USER

USER_HEADER = "X-User-Id"
CONVERSATION_HEADER = "X-Conversation-Id"
PAGE_PREFIX = "page:"
"""Owners of sessions that belong to an open page, followed by a random token."""
MAX_ID_CHARS = 256

_USER = USER_HEADER.lower().encode()
_CONVERSATION = CONVERSATION_HEADER.lower().encode()
# What a client sends where it had nothing to put in: `{{LIBRECHAT_USER_ID}}`, `${USER}`, JavaScript's own words.
_UNRESOLVED = re.compile(r"\{\{.*\}\}|\$\{.*\}|undefined|null|", re.DOTALL)


class BadIdentity(ValueError):
    """An identity header holds something that cannot be an id; the sentence says which and why."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a call belongs to. `identified` is False where nothing tells one user from another; then every call shares
    the owner `ANONYMOUS`, and whoever serves it must not list or guess anything of that owner. `missing` names the
    headers that were not there or not filled in."""

    owner: str
    conversation: str | None
    identified: bool
    missing: tuple[str, ...] = ()


def caller_of(headers: Iterable[tuple[bytes, bytes]], *, single_user: bool = False) -> Caller:
    """The caller that raw ASGI `headers` (lower-case names) speak for.

    LibreChat sends names beyond Latin-1 as `b64:` and base64 of UTF-8; placeholders that it could not fill count as
    missing. Raises BadIdentity.
    """
    user = conversation = None
    for name, value in headers:
        if name == _USER:
            user = _merged(USER_HEADER, user, value)
        elif name == _CONVERSATION:
            conversation = _merged(CONVERSATION_HEADER, conversation, value)
    if user:
        if user in (ANONYMOUS, SINGLE_USER) or user.startswith(PAGE_PREFIX):
            raise BadIdentity(f"{USER_HEADER} {user!r} is a reserved name; send the user's own id.")
        return Caller(user, conversation, True) if conversation else Caller(user, None, True, (CONVERSATION_HEADER,))
    if single_user:
        return Caller(SINGLE_USER, conversation or None, True, () if conversation else (CONVERSATION_HEADER,))
    # a conversation alone does not say whose it is
    missing = (USER_HEADER,) if conversation else (USER_HEADER, CONVERSATION_HEADER)
    return Caller(ANONYMOUS, None, False, missing)


def _merged(header: str, known: str | None, raw: bytes) -> str:
    value = _value(header, raw)
    if known and value and known != value:
        raise BadIdentity(f"{header} was sent twice with different values; send it once.")
    return known or value


def _value(header: str, raw: bytes) -> str:
    text = raw.decode("latin-1").strip()
    if text.startswith("b64:"):
        try:
            text = base64.b64decode(text[4:], validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError):
            raise BadIdentity(f"{header} begins with b64: but is not base64 of UTF-8 text.") from None
    if _UNRESOLVED.fullmatch(text):
        return ""
    if len(text) > MAX_ID_CHARS:
        raise BadIdentity(f"{header} has {len(text)} characters; at most {MAX_ID_CHARS} are taken.")
    if any(char < " " or "\x7f" <= char < "\xa0" for char in text):
        raise BadIdentity(f"{header} holds control characters; send a plain id.")
    return text
