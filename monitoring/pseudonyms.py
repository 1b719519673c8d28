"""Pseudonyms: the short salted hashes that stand for owners and sessions wherever an operator reads."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from functools import lru_cache

LENGTH = 12
"""Hex digits of a pseudonym: 48 bits, so that two of 100,000 names meet once in 50,000 Spaces."""


class Pseudonyms:
    """Turns names into pseudonyms with one salt.

    A session id opens its session to whoever holds it where callers are not identified, and an owner's id is a
    guessable account number: neither may be read from a log. Without a salt a random one is taken, and pseudonyms then
    change with every start; set `LOG_SALT` to follow somebody over restarts and to look a known user up.
    """

    def __init__(self, salt: str = "") -> None:
        self._key = salt.encode() or secrets.token_bytes(16)
        self.of = lru_cache(maxsize=4096)(self._of)

    def _of(self, name: str) -> str:
        """The pseudonym of `name`: 12 hex digits, empty for an empty name."""
        return hmac.new(self._key, name.encode(), hashlib.sha256).hexdigest()[:LENGTH] if name else ""
