"""Open files in a saved state: opened again at the same position, where the file is still what it was.

A forked copy shares its files' positions and would write what is buffered a second time. So it cuts itself off first:
`cut_off` gives it descriptors of its own, none of which can write.
"""

from __future__ import annotations

import gc
import io
import os
import resource
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from executor.languages.reasons import Unsaveable
from executor.languages.rebuilding import now

KINDS = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.FileIO)
_NEWLINES = frozenset({"", "\n", "\r", "\r\n"})
_SEEN = ("encoding", "errors")
_open, _os_open, _fstat, _stat, _lseek = open, os.open, os.fstat, os.stat, os.lseek
_dup2, _close = os.dup2, os.close


def cut_off() -> None:
    """In a forked copy: regular files at their positions but for reading only, and nothing behind all the rest."""
    nowhere = _os_open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in _descriptors():
        if fd == nowhere:
            continue
        try:
            kind = _fstat(fd).st_mode
            if stat.S_ISREG(kind):
                position = _lseek(fd, 0, os.SEEK_CUR)
                fresh = _os_open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
                _lseek(fresh, position, os.SEEK_SET)
                _dup2(fresh, fd, inheritable=False)
                _close(fresh)
                continue
        except OSError:
            pass
        with suppress(OSError):
            _dup2(nowhere, fd, inheritable=False)


def _descriptors() -> list[int]:
    try:
        return [int(entry.name) for entry in Path("/proc/self/fd").iterdir()]
    except OSError:
        return list(range(min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], 4096)))


def flush_all(values: list[Any]) -> None:
    """In the worker itself, before the fork: write out what top-level files hold back."""
    for value in values:
        if type(value) in KINDS:
            with suppress(OSError, ValueError):
                if value.writable() and stat.S_ISREG(_fstat(value.fileno()).st_mode):
                    _position(value)


def reduce_file(file: Any, folder: str) -> Any:
    """How pickle stores an open or a closed file. Raises Unsaveable."""
    kind = type(file)
    raw = _raw(file)
    name, mode = raw.name, _mode(file)
    if not isinstance(name, str):
        raise Unsaveable("open pipe or descriptor" if isinstance(name, int) else "open file with an unusual name")
    text = {key: getattr(file, key) for key in _SEEN} if kind is io.TextIOWrapper else {}
    place = _relative(name, folder)
    if file.closed:
        return closed_file, (place, mode, text)
    try:
        there, here = _stat(name), _fstat(file.fileno())
    except OSError:
        raise Unsaveable("open file that has been deleted") from None
    if not stat.S_ISREG(here.st_mode):
        raise Unsaveable("open pipe or device")
    if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
        raise Unsaveable("open file that has been replaced")
    try:
        position = _position(file)
    except OSError as error:
        if "telling position" in str(error):
            raise Unsaveable("open file in the middle of a loop over its lines") from None
        raise Unsaveable("open file whose last writes have not reached the disk") from None
    buffering = 0 if kind is io.FileIO else -1
    if kind is io.TextIOWrapper:
        text["newline"] = _newline(file)
        if file.write_through:
            raise Unsaveable("open file with unusual options")
        if file.line_buffering:
            buffering = 1
    size = _fstat(file.fileno()).st_size if file.writable() else None
    return open_again, (place, mode, buffering, text, position, size)


def _position(file: Any) -> int:
    """Where the file is, with nothing held back."""
    # a text file's `tell` writes out by itself; `flush` would have it forget that a loop over its lines is under way
    if type(file) is not io.TextIOWrapper and file.writable():
        file.flush()
    position: int = file.tell()
    return position


def _raw(file: Any) -> Any:
    try:
        while type(file) is not io.FileIO:
            file = file.buffer if type(file) is io.TextIOWrapper else file.raw
    except (AttributeError, ValueError):
        raise Unsaveable("stream over another object") from None
    return file


def _mode(file: Any) -> str:
    # BufferedReader says "rb", FileIO "rb+", TextIOWrapper what `open` was given, where it was
    mode = getattr(file, "mode", None)
    if not isinstance(mode, str) or not set(mode) <= set("rwaxbt+"):
        raise Unsaveable("open file with an unusual mode")
    return mode


def _newline(file: Any) -> str | None:
    """What `open` was given as `newline`, which no attribute tells."""
    known = {file.encoding, file.errors}
    found = [s for s in gc.get_referents(file) if type(s) is str and s not in known and s in _NEWLINES]
    if len(found) > 1:
        raise Unsaveable("open file in the middle of a line")
    return found[0] if found else None


def _relative(name: str, folder: str) -> tuple[bool, str]:
    """(whether below the session's folder, the path from there); a relative path stays as it is."""
    if name == folder or name.startswith(folder + "/"):
        return True, name[len(folder) :].lstrip("/")
    return False, name


def _placed(place: tuple[bool, str]) -> str:
    below, path = place
    return str(Path(now().folder) / path) if below else path


def open_again(
    place: tuple[bool, str], mode: str, buffering: int, text: dict[str, Any], position: int, size: int | None
) -> Any:
    """A file as it was left. Raises ValueError where another size shows that it is no more what it was."""
    path = _placed(place)
    if size is not None and _stat(path).st_size != size:
        raise ValueError("the file has another size now")
    file = _open(path, mode, buffering, opener=_keep, **text)
    try:
        file.seek(position)
    except BaseException:
        file.close()
        raise
    return file


def _keep(path: str, flags: int) -> int:
    return _os_open(path, flags & ~(os.O_TRUNC | os.O_CREAT | os.O_EXCL))


def closed_file(place: tuple[bool, str], mode: str, text: dict[str, Any]) -> Any:
    """A file that was closed already."""
    file = _open(_placed(place), mode, opener=_nowhere, **text)
    file.close()
    return file


def _nowhere(path: str, flags: int) -> int:
    return _os_open(os.devnull, os.O_RDWR)
