"""Pseudonyms: the short salted hashes that stand for owners and sessions wherever an operator reads.

`LOG_SALT=... python -m monitoring.pseudonyms NAME` prints the pseudonym of an owner or a session.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sys
from functools import lru_cache

from executor.settings import Settings

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


def main(names: list[str]) -> int:
    """Print the pseudonym of each of `names`; returns the exit code."""
    salt = Settings.from_env().log_salt
    if not salt or not names:
        sys.stderr.write("Give the salt that the app runs with as LOG_SALT, and an owner or a session to look up.\n")
        return 2
    for name in names:
        sys.stdout.write(f"{Pseudonyms(salt).of(name)}  {name}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
