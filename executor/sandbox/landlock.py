"""Landlock: which files a process may read, write or run, and a refusal of TCP, UDP, signals and sockets outside.

Numbers: Linux, include/uapi/linux/landlock.h; the system calls have the same numbers on every architecture.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from executor.sandbox.kernel import syscall

_CREATE_RULESET: Final = 444
_ADD_RULE: Final = 445
_RESTRICT_SELF: Final = 446
_RULE_PATH_BENEATH: Final = 1
_GET_VERSION: Final = 1

EXECUTE: Final = 1 << 0
WRITE_FILE: Final = 1 << 1
READ_FILE: Final = 1 << 2
READ_DIR: Final = 1 << 3
TRUNCATE: Final = 1 << 14
IOCTL_DEV: Final = 1 << 15
MAKE_CHAR: Final = 1 << 6
MAKE_BLOCK: Final = 1 << 11

READ: Final = READ_FILE | READ_DIR
RUN: Final = READ | EXECUTE
DEVICE: Final = READ_FILE | WRITE_FILE | TRUNCATE | IOCTL_DEV
# everything of the known rights but making devices
WRITE: Final = ((1 << 17) - 1) & ~(MAKE_CHAR | MAKE_BLOCK | IOCTL_DEV)
# a rule on a file may carry only these
_FILE_RIGHTS: Final = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL_DEV

# how many rights of each kind an ABI knows: files, network, scopes
_KNOWN: Final = {
    1: (13, 0, 0),
    2: (14, 0, 0),
    3: (15, 0, 0),
    4: (15, 2, 0),
    5: (16, 2, 0),
    6: (16, 2, 2),
    9: (17, 2, 2),
}


@dataclass(frozen=True, slots=True)
class Handled:
    """The rights that rulesets here refuse unless granted, as bit masks."""

    files: int
    network: int
    scopes: int

    @property
    def truncate(self) -> bool:
        """Whether truncate(2) by path is held (ABI 3)."""
        return bool(self.files & TRUNCATE)

    @property
    def tcp(self) -> bool:
        """Whether TCP is held (ABI 4)."""
        return bool(self.network & 1)

    @property
    def signals(self) -> bool:
        """Whether signals stay inside (ABI 6)."""
        return bool(self.scopes & 2)


def abi() -> int:
    """The ABI that the kernel names, 0 without Landlock. For the report: what holds is found by `handled`."""
    try:
        return syscall(_CREATE_RULESET, 0, 0, _GET_VERSION)
    except OSError:
        return 0


def handled(abi_limit: int | None = None) -> Handled | None:
    """The rights that this kernel takes, found by asking for each; None without Landlock.

    `abi_limit` pretends an older kernel: tests hold the sandbox to its promise on each.
    """
    known = (17, 8, 8)
    if abi_limit is not None:
        known = _KNOWN[max(n for n in _KNOWN if n <= abi_limit)]
    files, network, scopes = (_accepted(place, known[place]) for place in range(3))
    return Handled(files, network, scopes) if files else None


@cache
def _accepted(place: int, count: int) -> int:
    """The mask of rights of one kind that the kernel knows, of the first `count`."""
    mask = 0
    for bit in range(count):
        request = [1, 0, 0]
        request[place] = 1 << bit
        # the kernel compares the tail it does not know with zero, so a short structure suits old ones, too
        attribute = struct.pack("=3Q", *request)[: 8 * (place + 1)]
        try:
            os.close(_create(attribute))
        except OSError:
            break
        mask |= 1 << bit
    return mask


def _create(attribute: bytes) -> int:
    buffer = ctypes.create_string_buffer(attribute, len(attribute))
    return syscall(_CREATE_RULESET, ctypes.addressof(buffer), len(attribute), 0)


class Ruleset:
    """A ruleset under construction; `allow` what is needed, then `restrict` processes to it, as many as you like."""

    def __init__(self, handled: Handled) -> None:
        self.handled = handled
        fields = (handled.files, handled.network, handled.scopes)
        size = max((i + 1 for i, mask in enumerate(fields) if mask), default=1)
        self.fd = _create(struct.pack("=3Q", *fields)[: 8 * size])

    def allow(self, fd: int, rights: int, *, is_file: bool) -> None:
        """Grant `rights` on the file or the tree that `fd` (O_PATH will do) stands for. Raises OSError."""
        rights &= self.handled.files
        if is_file:
            rights &= _FILE_RIGHTS
        rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, fd), 12)
        syscall(_ADD_RULE, self.fd, _RULE_PATH_BENEATH, ctypes.addressof(rule), 0)

    def restrict(self) -> None:
        """Hold the calling thread and its future children to the ruleset; needs no_new_privs. Raises OSError."""
        syscall(_RESTRICT_SELF, self.fd, 0)

    def close(self) -> None:
        """Give the descriptor back; processes that are held stay held."""
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Grant:
    """Rights on a path whose handle is open already, so that a session's ruleset costs one call a path."""

    path: str
    fd: int
    rights: int
    is_file: bool


def grants(paths: Iterable[str], rights: int) -> list[Grant]:
    """Handles on those of `paths` that exist, links followed; a path that cannot be opened is left out."""
    found = []
    for path in paths:
        real = os.path.realpath(path)
        try:
            fd = os.open(real, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        found.append(Grant(real, fd, rights, not os.path.isdir(real)))
    return found
