"""Where the Space keeps its sessions when the operator has not said so: where they outlive a restart, if it can."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from executor.errors import SettingsError
from executor.settings import Settings

VOLUME = Path("/data")
"""Where Hugging Face mounts a Space's storage. The rest of its disk is lost with every restart."""

NAME = "code-interpreter"


def with_store(settings: Settings) -> Settings:
    """The settings with a `state_dir` that can be written, or still without one. Raises SettingsError for a bad one."""
    if not settings.snapshots:
        return settings
    if settings.state_dir:
        folder = Path(settings.state_dir).expanduser().absolute()
        if not _is_ours(folder):
            raise SettingsError(f"STATE_DIR={settings.state_dir}: this folder cannot be made or written.")
        return settings
    home = _of_the_space() if settings.space_id else _of_the_user()
    # where nothing lasts the state is in a temporary folder, and `how_long` says so
    if home is None or not _is_ours(home / NAME):
        return settings
    return dataclasses.replace(settings, state_dir=str(home / NAME))


def how_long(settings: Settings) -> str:
    """What sessions outlive, for health and system information."""
    if not settings.snapshots:
        return "nothing: sessions end where they would be parked"
    if not settings.state_dir:
        return "being idle, not a restart: there is no lasting folder (STATE_DIR)"
    return "being idle and restarts"


def _of_the_space() -> Path | None:
    """The volume, if there is one."""
    return VOLUME if os.access(VOLUME, os.W_OK) else None


def _of_the_user() -> Path | None:
    """The folder for state of the XDG Base Directory Specification; a user without a name or home has none."""
    given = os.environ.get("XDG_STATE_HOME", "")
    try:
        return Path(given) if given.startswith("/") else Path.home() / ".local" / "state"
    except RuntimeError:
        return None


def _is_ours(folder: Path) -> bool:
    """Whether the folder is there or can be made, and can be written by us."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.R_OK | os.W_OK | os.X_OK)
