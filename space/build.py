"""Build: which bundle this is, and with which settings it was started, in names that `deploy` compares."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

BUILD_FILE = Path(__file__).resolve().parent.parent / "BUILD"
"""Beside the entry file of a bundle, written by `deploy`; one line."""

SOURCE = "source"
"""Build id of a checkout, which is no build."""

NOTE = "DEPLOY_STATE"
"""Variable of the Space that holds what `deploy` set there."""


@cache
def build_id() -> str:
    """The id of this build, `source` where it runs from a checkout."""
    try:
        return BUILD_FILE.read_text(encoding="utf-8").strip() or SOURCE
    except OSError:
        return SOURCE


def settings_id(note: str) -> str:
    """Twelve digits for the settings that `deploy` gave a process, by its note; empty where it gave none.

    The note holds names and salted fingerprints and is new with every change: its digest tells a process that has the
    new settings from the one before, which is of the same build.
    """
    return hashlib.sha256(note.strip().encode()).hexdigest()[:12] if note.strip() else ""
