"""Private namespaces where the host grants them: processes, network, IPC, host name, and a view of files of its own.

Who does what, and why so:
- The zygote, once (`View.build`): a mount namespace, in a user namespace where it is not privileged, with a small root
  that holds nothing but the readable paths, read-only. It keeps the right to make more of them.
- Each leader, once (`enter`): copies of all namespaces, in microseconds as little is mounted anew; the session's folder
  at `/session`, its `.tmp` at `/tmp`, a small `/dev/shm`; then the small root becomes its root, and it gives its rights
  away.
- The leader itself stays outside of the new process ids, so it sees the host's numbers, and every worker that it forks,
  at any later time and without any right, is inside. The first process inside is their init: it reaps orphans, and the
  kernel kills everything when it ends, which it does when the leader ends.

Sources: unshare(2), pid_namespaces(7), mount_namespaces(7), pivot_root(2).
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from executor.sandbox import identity, init
from executor.sandbox.kernel import syscall
from executor.sandbox.landlock import Grant

NEWNS: Final = 0x00020000
NEWUTS: Final = 0x04000000
NEWIPC: Final = 0x08000000
NEWUSER: Final = 0x10000000
NEWPID: Final = 0x20000000
NEWNET: Final = 0x40000000

_UNSHARE, _MOUNT, _UMOUNT2, _PIVOT_ROOT, _SETHOSTNAME, _MOUNT_SETATTR = 272, 165, 166, 155, 170, 442

_NOSUID, _NODEV, _NOEXEC, _RDONLY = 2, 4, 8, 1
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH: Final = 2
_AT_FDCWD: Final = -100
_AT_RECURSIVE: Final = 0x8000

FOLDER: Final = "/session"
"""Where a session's folder is in its own view."""
TEMPORARY: Final = "/tmp"  # noqa: S108 - a private one
SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108 - the same

_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_LINKS: Final = {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
_MASKED: Final = ("cmdline", "config.gz", "kallsyms", "kcore", "key-users", "keys", "kmsg", "modules", "sysrq-trigger")
"""Files of /proc that speak of the host and not of the session."""


def unshare(flags: int) -> None:
    """Leave the namespaces that `flags` name for new ones. Raises OSError."""
    syscall(_UNSHARE, flags)


VIEW: Final = ".view-"
"""Start of a view's name; its process's id follows. Two never share one: giving one free takes away what another has
mounted there, whatever its namespace."""


class View:
    """A small root, built once in the zygote at `scratch`; `why` says what went wrong where it could not be."""

    def __init__(self, scratch: str) -> None:
        self.scratch = scratch
        self.temporary = True
        """Whether sessions have a private /tmp; not where interpreters lie in it."""

    def build(self, grants: Iterable[Grant], links: Iterable[tuple[str, str]]) -> None:
        """Enter a mount namespace and build the root from the granted paths, and from links of (path, target).

        The calling process keeps its own root. Raises OSError where the host does not grant it.
        """
        if not identity.may_mount():
            _own_user_namespace()
        else:
            unshare(NEWNS)
        _mount("none", "/", "", _REC | _PRIVATE)
        os.makedirs(self.scratch, 0o755, exist_ok=True)
        _mount("view", self.scratch, "tmpfs", _NOSUID | _NODEV, "mode=755,size=1m")
        grants = list(grants)
        self.temporary = not any(_below(grant.path, TEMPORARY) for grant in grants)
        done: list[str] = []
        for grant in sorted(grants, key=lambda grant: len(grant.path)):
            if grant.path.startswith("/dev/") or any(_below(grant.path, folder) for folder in done):
                continue
            self._bind(grant.path, is_file=grant.is_file, seal=not grant.path.startswith("/proc"))
            done.append(grant.path)
        for path, target in links:
            if not any(_below(path, folder) for folder in done):
                place = self._at(path)
                place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
                with suppress(FileExistsError):
                    place.symlink_to(target)
        for device in _DEVICES:
            self._bind(f"/dev/{device}", is_file=True, seal=False)
        for name, target in _LINKS.items():
            self._at(f"/dev/{name}").symlink_to(target)
        for folder in (SHARED_MEMORY, "/proc", TEMPORARY, FOLDER):
            self._at(folder).mkdir(mode=0o755, parents=True, exist_ok=True)

    def close(self) -> None:
        """In the zygote, at its end: give the scratch folder free."""
        text = ctypes.create_string_buffer(os.fsencode(self.scratch))
        with suppress(OSError):
            syscall(_UMOUNT2, ctypes.addressof(text), _MNT_DETACH)
            os.rmdir(self.scratch)

    def _at(self, path: str) -> Path:
        return Path(self.scratch + path)

    def _bind(self, path: str, *, is_file: bool, seal: bool) -> None:
        place = self._at(path)
        if is_file:
            place.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            place.touch(0o644)
        else:
            place.mkdir(mode=0o755, parents=True, exist_ok=True)
        # recursive: what is mounted below may not be uncovered by an unprivileged user
        _mount(path, str(place), "", _BIND | _REC)
        if seal:
            _restrict(str(place), _RDONLY | _NOSUID | _NODEV)

    def enter(self, folder: str, *, shared_memory: int, uid: int | None, gid: int | None) -> int:
        """In the leader: new namespaces and the small root, with `folder` at FOLDER; the pid of the session's init.

        The leader's own process id does not change, and it must hold a handle on the old /proc already. It still has
        its rights afterwards; the init has not. Raises OSError.
        """
        unshare(NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS)
        name = b"session"
        buffer = ctypes.create_string_buffer(name)
        syscall(_SETHOSTNAME, ctypes.addressof(buffer), len(name))
        for source, place in ((folder, FOLDER), *([(f"{folder}/.tmp", TEMPORARY)] if self.temporary else [])):
            _mount(source, self.scratch + place, "", _BIND)
            _restrict(self.scratch + place, _NOSUID | _NODEV)
        _mount(
            "shm",
            self.scratch + SHARED_MEMORY,
            "tmpfs",
            _NOSUID | _NODEV,
            f"mode=1777,size={shared_memory},nr_inodes=4096",
        )
        first, life = init.start(self._mount_proc, uid=uid, gid=gid)
        os.chdir(self.scratch)
        dot = ctypes.create_string_buffer(b".")
        syscall(_PIVOT_ROOT, ctypes.addressof(dot), ctypes.addressof(dot))
        syscall(_UMOUNT2, ctypes.addressof(dot), _MNT_DETACH)
        os.chdir("/")
        init.release(life)
        return first

    def _mount_proc(self) -> None:
        """In the init, whose process ids it shows."""
        proc = f"{self.scratch}/proc"
        _mount("proc", proc, "proc", _NOSUID | _NODEV | _NOEXEC)
        for name in _MASKED:
            with suppress(OSError):
                _mount("/dev/null", f"{proc}/{name}", "", _BIND)
        _restrict(proc, _RDONLY)


def _own_user_namespace() -> None:
    """A user namespace in which we are ourselves, with every right in it and none outside."""
    uid, gid = os.getuid(), os.getgid()
    identity.show()  # else the maps below belong to root
    unshare(NEWUSER | NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    identity.hide()


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    texts = [ctypes.create_string_buffer(os.fsencode(text)) for text in (source, target, kind, options)]
    addresses = [ctypes.addressof(text) for text in texts]
    try:
        syscall(_MOUNT, addresses[0], addresses[1], addresses[2], flags, addresses[3])
    except OSError as error:
        raise OSError(error.errno, f"mounting {target}: {error.strerror}") from None


def _restrict(path: str, flags: int) -> None:
    """Add read-only, nosuid or nodev to a mount and all below it; the bits are those of mount(2)."""
    attribute = ctypes.create_string_buffer(struct.pack("=4Q", flags, 0, 0, 0), 32)
    text = ctypes.create_string_buffer(os.fsencode(path))
    syscall(
        _MOUNT_SETATTR, _AT_FDCWD, ctypes.addressof(text), _AT_RECURSIVE, ctypes.addressof(attribute), len(attribute)
    )


def _below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder + "/")
