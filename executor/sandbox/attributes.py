"""chmod and utime on behalf of a guest: by the leader's own handle, and only below the session's folders.

Landlock does not mediate these calls, and where all sessions share the uid that owns the system they reach any file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from executor.sandbox.kernel import syscall
from executor.sandbox.processes import ProcessTree
from executor.sandbox.syscalls import MODES, TIMES

_AT_FDCWD: Final = -100
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_EMPTY_PATH: Final = 0x1000
_PATH_MAX: Final = 4096
_PAGE: Final = 4096
_OPENAT2: Final = 437
_RESOLVE_NO_MAGICLINKS: Final = 2
_UTIME_NOW: Final = (1 << 30) - 1
_UTIME_OMIT: Final = (1 << 30) - 2


class Refused(Exception):
    """The file lies outside of the session's folders."""


@dataclass(frozen=True, slots=True)
class Asker:
    """The thread that waits for us in a call, and the folders below which it may change files.

    `still_waiting` tells whether the thread still is the one that asked: its number may be given to another.
    """

    tree: ProcessTree
    task: int
    folders: tuple[str, ...]
    still_waiting: Callable[[], bool]

    def change(self, number: int, args: tuple[int, ...]) -> None:
        """Carry out the call. Raises Refused, or the OSError to answer."""
        if number in MODES:
            self._change_mode(MODES[number], args)
        else:
            self._change_times(TIMES[number], args)

    def _change_mode(self, name: str, args: tuple[int, ...]) -> None:
        base, path, flags = _AT_FDCWD, args[0], 0
        mode = args[1]
        if name == "fchmod":
            base, path, flags = args[0], 0, _AT_EMPTY_PATH
        elif name != "chmod":
            base, path, mode = args[:3]
            flags = args[3] if name == "fchmodat2" else 0
        handle, place = self._handle(base, path, flags)
        try:
            if stat.S_ISLNK(os.fstat(handle).st_mode):
                raise _error(errno.EOPNOTSUPP)
            mode &= 0o1777  # no suid, no sgid
            if place in self.folders:
                mode |= 0o700  # the leader works in there, too
            os.chmod(f"self/fd/{handle}", mode, dir_fd=self.tree.proc)
        finally:
            os.close(handle)

    def _change_times(self, name: str, args: tuple[int, ...]) -> None:
        base, path, times, flags = _AT_FDCWD, args[0], args[1], 0
        if name in ("futimesat", "utimensat"):
            base, path, times = args[:3]
            flags = args[3] if name == "utimensat" else 0
            if not path:
                flags |= _AT_EMPTY_PATH
        wanted = self._times(name, times) if times else None
        handle, _ = self._handle(base, path, flags)
        try:
            found = os.fstat(handle)
            if stat.S_ISLNK(found.st_mode):
                return  # no handle can change a link's own times; nobody will miss them
            target = f"self/fd/{handle}"
            if wanted is None:
                os.utime(target, dir_fd=self.tree.proc)
                return
            kept = (found.st_atime_ns, found.st_mtime_ns)
            atime, mtime = (old if new is None else new for old, new in zip(kept, wanted, strict=True))
            os.utime(target, ns=(atime, mtime), dir_fd=self.tree.proc)
        finally:
            os.close(handle)

    def _times(self, name: str, address: int) -> list[int | None]:
        """Access and modification time in nanoseconds; None: leave as it is."""
        if name == "utime":
            return [seconds * 10**9 for seconds in struct.unpack("=2q", self._memory(address, 16))]
        fields = struct.unpack("=4q", self._memory(address, 32))
        unit = 1 if name == "utimensat" else 1000
        found: list[int | None] = []
        for seconds, fraction in (fields[:2], fields[2:]):
            if unit == 1 and fraction == _UTIME_OMIT:
                found.append(None)
            elif unit == 1 and fraction == _UTIME_NOW:
                found.append(time.time_ns())
            elif 0 <= fraction * unit < 10**9:
                found.append(seconds * 10**9 + fraction * unit)
            else:
                raise _error(errno.EINVAL)
        return found

    def _handle(self, base: int, path: int, flags: int) -> tuple[int, str]:
        """An O_PATH descriptor of the file that is meant, and where it lies: below the folders, or Refused."""
        base = ctypes.c_int(base & 0xFFFFFFFF).value
        name = self._text(path) if path else b""
        if name:
            handle = self._open(base, name, follow=not flags & _AT_SYMLINK_NOFOLLOW)
        elif flags & _AT_EMPTY_PATH:
            handle = self._own(base)
        else:
            raise _error(errno.ENOENT)
        try:
            place = os.readlink(f"self/fd/{handle}", dir_fd=self.tree.proc)
            if not any(place == folder or place.startswith(folder + "/") for folder in self.folders):
                raise Refused
            if not self.still_waiting():
                raise _error(errno.ESRCH)
        except BaseException:
            os.close(handle)
            raise
        return handle, place

    def _own(self, fd: int) -> int:
        """The asker's descriptor, or its working directory."""
        place = f"{self.task}/cwd" if fd == _AT_FDCWD else f"{self.task}/fd/{fd}"
        try:
            return os.open(place, os.O_PATH | os.O_CLOEXEC, dir_fd=self.tree.proc)
        except FileNotFoundError:
            raise _error(errno.EBADF) from None

    def _open(self, base: int, name: bytes, *, follow: bool) -> int:
        start = _AT_FDCWD if name.startswith(b"/") else self._own(base)
        flags = os.O_PATH | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        # magic links would lead into the leader's own descriptors
        how = ctypes.create_string_buffer(struct.pack("=3Q", flags, 0, _RESOLVE_NO_MAGICLINKS), 24)
        text = ctypes.create_string_buffer(name)
        try:
            return syscall(_OPENAT2, start, ctypes.addressof(text), ctypes.addressof(how), 24)
        finally:
            if start != _AT_FDCWD:
                os.close(start)

    def _text(self, address: int) -> bytes:
        """A path in the asker's memory: up to its NUL, never over the end of a page that may be the last."""
        text = b""
        while len(text) < _PATH_MAX:
            size = min(_PAGE - (address + len(text)) % _PAGE, _PATH_MAX - len(text))
            text += self._memory(address + len(text), size)
            end = text.find(b"\0")
            if end >= 0:
                return text[:end]
        raise _error(errno.ENAMETOOLONG)

    def _memory(self, address: int, size: int) -> bytes:
        """Bytes of the asker's memory. Raises EFAULT, or EPERM when the asker hides."""
        try:
            fd = os.open(f"{self.task}/mem", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.tree.proc)
        except OSError:
            raise _error(errno.EPERM) from None
        try:
            data = os.pread(fd, size, address)
        except (OSError, OverflowError):
            data = b""
        finally:
            os.close(fd)
        if len(data) != size:
            raise _error(errno.EFAULT)
        return data


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))
