"""Paths: where sessions are, which paths there may be within one, how they are shown, and what a failed one means."""

from __future__ import annotations

import errno
import os

from executor.errors import FileRefused, InvalidRequest, NoSuchFile

PRIVATE = (".tmp", ".packages", ".state")
"""Folders of ours at the top of every workspace: temporary files, installed packages, what interpreters have saved."""

SESSIONS = "sessions"
"""Folder of all sessions' folders, in the state folder."""

MAX_NAME = 255
MAX_PATH = 1024
MAX_DEPTH = 48


def split_path(path: str) -> list[str]:
    """The components of a path within a workspace. Raises InvalidRequest, saying what a path must look like."""
    if not isinstance(path, str) or not path.strip():
        raise InvalidRequest("The path is empty. Give a path relative to the session's folder, such as data.csv.")
    if path.startswith(("/", "~")) or (len(path) > 1 and path[1] == ":"):
        raise InvalidRequest(
            f"{quoted(path)} is an absolute path. Give a path relative to the session's folder, such as data.csv."
        )
    if any(ord(c) < 32 or ord(c) == 127 for c in path):
        raise InvalidRequest(f"{quoted(path)} has a control character in its name. Choose another name.")
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{quoted(path)} has half of a character (a lone surrogate) in its name.") from None
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts:
        raise InvalidRequest(f"{quoted(path)} names no file.")
    if ".." in parts:
        raise InvalidRequest(f"{quoted(path)} leaves the session's folder. Use a path without '..'.")
    if len(raw) > MAX_PATH or any(len(part.encode()) > MAX_NAME for part in parts):
        raise InvalidRequest(
            f"The path {quoted(path)} is too long: at most {MAX_NAME} bytes a name and {MAX_PATH} in all."
        )
    if len(parts) > MAX_DEPTH:
        raise InvalidRequest(f"{quoted(path)} is more than {MAX_DEPTH} folders deep.")
    if parts[0] in PRIVATE:
        raise InvalidRequest(f"{parts[0]} is kept for the session itself. Choose another folder.")
    return parts


def printable(path: str) -> str:
    """A path as text that can be encoded: bytes that are no UTF-8 are shown as escapes."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return os.fsencode(path).decode(errors="backslashreplace")
    return path


def quoted(path: str) -> str:
    shown = path if len(path) <= 80 else path[:77] + "..."
    return repr(shown.encode(errors="backslashreplace").decode())


def refusal(path: str, error: OSError, *, folder: bool = False) -> NoSuchFile | FileRefused:
    match error.errno:
        case errno.ENOENT:
            return NoSuchFile(f"There is no file {quoted(path)} in this session. list_files shows what is there.")
        case errno.ELOOP:
            return FileRefused(f"{quoted(path)} is a symbolic link, which is not followed. Copy the file instead.")
        case errno.ENOTDIR:
            return FileRefused(f"{quoted(path)} passes something that is not a folder (a file or a link).")
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return FileRefused(f"The disk is full; {quoted(path)} was not written. Delete files first.")
        case errno.EACCES | errno.EPERM:
            return FileRefused(f"{quoted(path)} cannot be opened: its mode forbids it. Change it with chmod u+rw.")
        case errno.ENXIO:
            return FileRefused(f"{quoted(path)} is not an ordinary file (a socket or a pipe).")
        case _:
            return FileRefused(f"{quoted(path)} cannot be used: {error.strerror or error}.")
