"""Removal: deletes a folder that a guest has filled, however it has filled it."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def remove_tree(path: str, *, parent: int | None = None) -> None:
    """Delete a folder whatever it holds, however deep it nests.

    Folders are moved up to the top before they are emptied, so neither recursion nor a long path is ever needed.
    """
    try:
        root = os.open(path, _DIR, dir_fd=parent)
    except OSError:
        with suppress(OSError):
            os.unlink(path, dir_fd=parent)
        return
    try:
        pending = ["."]
        serial = 0
        while pending:
            current = pending.pop()
            with suppress(OSError):
                os.chmod(current, 0o700, dir_fd=root)
            try:
                fd = os.open(current, _DIR, dir_fd=root)
            except OSError:
                continue
            try:
                with os.scandir(fd) as entries:
                    found = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
                for name, is_folder in found:
                    if not is_folder:
                        with suppress(OSError):
                            os.unlink(name, dir_fd=fd)
                    elif current == ".":
                        pending.append(name)
                    else:
                        serial += 1
                        # 24 random bytes: no name that the guest could have put there first
                        moved = f"{serial}-{secrets.token_hex(12)}"
                        with suppress(OSError):
                            os.chmod(name, 0o700, dir_fd=fd)
                        with suppress(OSError):
                            os.rename(name, moved, src_dir_fd=fd, dst_dir_fd=root)
                            pending.append(moved)
            finally:
                os.close(fd)
            if current != ".":
                with suppress(OSError):
                    os.rmdir(current, dir_fd=root)
    finally:
        os.close(root)
    with suppress(OSError):
        os.rmdir(path, dir_fd=parent)
