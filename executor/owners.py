"""Owners who stand for many people, or for whoever is at the machine."""

from typing import Final

ANONYMOUS: Final = "anonymous"
"""The owner of callers of whom nothing is known."""

SINGLE_USER: Final = "single-user"
"""The owner of all callers on a machine that is one person's."""

SHARED: Final = frozenset({ANONYMOUS, SINGLE_USER})
"""They have no share of their own: no cap of one user holds for them."""
