"""Who a process is: its user, its privileges, and whether others of the same user may look into it."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from typing import Final

from executor.sandbox.kernel import (
    LINUX,
    PR_CAP_AMBIENT,
    PR_CAPBSET_DROP,
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_SECUREBITS,
    X86_64,
    prctl,
    syscall,
)

_CAPSET: Final = 126 if X86_64 else 91
_CAPABILITY_VERSION_3: Final = 0x20080522
_LOWEST_USER: Final = 200_000
_USERS: Final = 100_000
"""Users of one server: a range by chance, as what an earlier server's sessions left, or another one's that runs beside,
is not ours."""
_RANGES: Final = 20_000
_CAP_AMBIENT_CLEAR_ALL: Final = 4
# keep_caps off, noroot, no_setuid_fixup, no ambient raise; each locked
_SECUREBITS: Final = 0b11101111


def mapped(text: str) -> int:
    """How many ids from `_LOWEST_USER` on a uid_map or gid_map holds (user_namespaces(7)); 0 where it is none."""
    for line in text.splitlines():
        with suppress(ValueError):
            first, _, count = (int(number) for number in line.split())
            if first <= _LOWEST_USER < first + count:
                return first + count - _LOWEST_USER
    return 0


def _mapped_here() -> int:
    with suppress(OSError):
        return min(mapped(open(f"/proc/self/{name}_map").read()) for name in ("uid", "gid"))
    return 0


_FIRST_USER: Final = _LOWEST_USER + _USERS * (
    int.from_bytes(os.urandom(4)) % max(1, min(_RANGES, _mapped_here() // _USERS))
)


def hide() -> None:
    """Make the calling process unreadable to others of its user: environ, memory, descriptors. Undone by exec."""
    if LINUX:
        prctl(PR_SET_DUMPABLE, 0)


def show() -> None:
    """Let the own leader read the calling process again; for a worker that Landlock already keeps from strangers."""
    if LINUX:
        prctl(PR_SET_DUMPABLE, 1)


def no_new_privileges() -> None:
    """Make setuid programs and file capabilities powerless for this process and its children, for good."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def effective_capabilities() -> int:
    """Mask of the calling process's effective capabilities, 0 off Linux."""
    with suppress(OSError, ValueError, IndexError):
        status = open("/proc/self/status", "rb").read()  # noqa: SIM115
        return int(status.split(b"CapEff:\t", 1)[1].split(None, 1)[0], 16)
    return 0


def drop(uid: int | None, gid: int | None) -> None:
    """Take the user and group, with no further groups, and give every privilege away for good.

    With None the process keeps its user: it may not change it, or no other could read the interpreter.
    What cannot be given away because it was never had is no error. Raises OSError.
    """
    # the bounding set and the bits need CAP_SETPCAP, so they come first
    for capability in range(64):
        try:
            prctl(PR_CAPBSET_DROP, capability)
        except OSError:
            break
    with suppress(OSError):
        prctl(PR_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    if uid is not None and gid is not None:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    else:
        with suppress(OSError):
            prctl(PR_SET_SECUREBITS, _SECUREBITS)
    head = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    none = ctypes.create_string_buffer(24)
    syscall(_CAPSET, ctypes.addressof(head), ctypes.addressof(none))
    no_new_privileges()
    if uid is not None and os.getuid() != uid:
        raise PermissionError(f"the session's user {uid} could not be taken")


def may_change_user() -> bool:
    """Whether this process may take the ids of sessions' users: CAP_SETUID, CAP_SETGID, CAP_CHOWN, and a user namespace
    that has a whole range of them."""
    wanted = (1 << 7) | (1 << 6) | (1 << 0)
    # asked anew: the zygote may have gone into a user namespace by now
    return effective_capabilities() & wanted == wanted and _mapped_here() >= _FIRST_USER - _LOWEST_USER + _USERS


def may_mount() -> bool:
    """Whether this process has CAP_SYS_ADMIN; whether the host lets it be used is for a try to tell."""
    return bool(effective_capabilities() & (1 << 21))


def session_user(place: int) -> int:
    """The uid and gid of the session in a place (0, 1, ...), where the server may give it one of its own."""
    return _FIRST_USER + place
