"""Removal: deletes a folder that a guest has filled, however it has filled it, even while it still fills it."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

_DIR = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def remove_tree(path: str, *, parent: int | None = None, proc: int | None = None) -> None:
    """Delete a folder whatever it holds, however deep it nests; what cannot be deleted is left.

    Folders are moved up to the top before they are emptied, so neither recursion nor a long path is ever needed. Modes
    are changed by handle alone: a name may be a link by the time it is used. `proc` is a handle on a /proc in which we
    are, for a process whose own /proc is another's.
    """
    own_proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) if proc is None else None
    try:
        _remove(path, parent, proc if own_proc is None else own_proc)
    finally:
        if own_proc is not None:
            os.close(own_proc)


def _remove(path: str, parent: int | None, proc: int | None) -> None:
    try:
        root = _enter(path, parent, proc)
    except OSError:
        with suppress(OSError):
            os.unlink(path, dir_fd=parent)
        return
    try:
        pending = _empty(root, root, proc)
        while pending:
            name = pending.pop()
            try:
                fd = _enter(name, root, proc)
            except OSError:
                continue
            try:
                pending += _empty(fd, root, proc)
            finally:
                os.close(fd)
            with suppress(OSError):
                os.rmdir(name, dir_fd=root)
    finally:
        os.close(root)
    with suppress(OSError):
        os.rmdir(path, dir_fd=parent)


def _empty(folder: int, root: int, proc: int | None) -> list[str]:
    """Delete the files of a folder and move its folders into `root`; the names that these have there."""
    moved = []
    with os.scandir(folder) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in found:
        if not is_folder:
            with suppress(OSError):
                os.unlink(name, dir_fd=folder)
        elif folder == root:
            moved.append(name)
        else:
            # no name that the guest could have put there first
            new = secrets.token_hex(16)
            with suppress(OSError):
                # to be moved, a folder must be writable itself
                os.close(_enter(name, folder, proc))
                os.rename(name, new, src_dir_fd=folder, dst_dir_fd=root)
                moved.append(new)
    return moved


def _enter(name: str, parent: int | None, proc: int | None) -> int:
    """A descriptor of a folder that we may read and write, whatever its mode was. Raises OSError."""
    try:
        fd = os.open(name, os.O_RDONLY | _DIR, dir_fd=parent)
    except PermissionError:
        handle = os.open(name, os.O_PATH | _DIR, dir_fd=parent)
        try:
            os.chmod(f"self/fd/{handle}", 0o700, dir_fd=proc)
            fd = os.open(f"self/fd/{handle}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=proc)
        finally:
            os.close(handle)
    try:
        os.fchmod(fd, 0o700)
    except OSError:
        os.close(fd)
        raise
    return fd
