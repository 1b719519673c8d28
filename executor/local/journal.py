"""Journal: a line for every cell that was handed to an interpreter, where no guest can reach it.

For audits, and to tell after a crash what was under way. Leaders of all sessions write to one file through one handle
that only adds; what they write says which code ran (SHA-256), never the code, and no session's id, which is a secret.
"""

from __future__ import annotations

import hashlib
import json
import os
import time

from executor.errors import SettingsError
from executor.local.cell import Cell


class Journal:
    """Opened by the zygote, inherited by leaders; workers have it closed before they are anybody's."""

    def __init__(self, fd: int | None) -> None:
        """Without a descriptor nothing is written."""
        self._fd = fd

    @classmethod
    def open(cls, path: str) -> Journal:
        """Add to the file at `path`, made where it is missing; to none for an empty path. Raises SettingsError."""
        if not path:
            return cls(None)
        try:
            return cls(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        except OSError as error:
            raise SettingsError(
                f"CELL_JOURNAL={path}: it cannot be written ({error.strerror}). Name a file in a folder that exists."
            ) from None

    def close(self) -> None:
        """Write no more."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def note(self, cell: Cell) -> None:
        """Write the line of a cell that is handed over now. A full disk loses lines, never a cell."""
        if self._fd is None:
            return
        line = {
            "at": round(time.time(), 3),
            "execution_id": cell.id,
            "language": cell.language,
            "number": cell.number,
            "sha256": hashlib.sha256(cell.code.encode("utf-8", "surrogatepass")).hexdigest(),
        }
        try:
            # one write: lines of several leaders never mix
            os.write(self._fd, json.dumps(line).encode() + b"\n")
        except OSError:
            return
