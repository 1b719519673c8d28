"""The leader's answers to the system calls that a worker's filter asks about: forks, signals, modes and times of files.

Every answer rests on integers of the call itself, or is carried out by the leader on its own handle, so a thread that
rewrites memory while we look gains nothing. Source: Linux, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import errno
import fcntl
import select
import signal
import struct
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from executor.sandbox.attributes import Asker, Refused
from executor.sandbox.processes import ProcessTree
from executor.sandbox.syscalls import (
    CLONE_PARENT,
    CLONE_THREAD,
    FORKS,
    MODES,
    SIGNALS,
    TARGETS,
    TIMES,
    Kind,
    Notify,
)

_RECV: Final = 0xC0502100
_SEND: Final = 0xC0182101
_ID_VALID: Final = 0x40082102
_CONTINUE: Final = 1
# struct seccomp_notif: id, task, flags, number, architecture, instruction, six arguments; and its answer
_REQUEST: Final = struct.Struct("=QIIiIQ6Q")
_ANSWER: Final = struct.Struct("=QqiI")

_BATCH: Final = 64
"""Answers in one go: a storm of calls must not keep the leader from its other work."""
_IN_FLIGHT: Final = 0.3
"""Seconds for which a fork that was let go is counted beside the living, as it may not be visible yet."""
_STALE: Final = 0.01
"""Seconds for which "full" stands at most without counting again, as a fork bomb would make us count all the time."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call: the thread that waits, in the leader's numbering, and what it asks for."""

    id: int
    task: int
    number: int
    args: tuple[int, ...]

    def integer(self, place: int) -> int:
        """An argument as the kernel's signed int."""
        low = self.args[place] & 0xFFFFFFFF
        return low - (1 << 32) if low >= 1 << 31 else low


_UNKNOWN: Final = (1 << 30, 1 << 30)


@dataclass(slots=True)
class Census:
    """How many processes and threads there may be, and an upper bound of how many there are, kept cheap."""

    processes: int
    threads: int
    seen: tuple[int, int] = _UNKNOWN
    seen_at: float = 0.0
    since: list[int] = field(default_factory=lambda: [0, 0])
    flying: dict[int, tuple[float, bool]] = field(default_factory=dict)
    cost: float = 0.0

    def full(self, is_thread: bool) -> Kind | None:
        """What there would be too much of with one more, by what is known."""
        if not is_thread and self.seen[0] + self.since[0] >= self.processes:
            return "processes"
        return "threads" if self.seen[1] + self.since[1] >= self.threads else None

    def recount(self, tree: ProcessTree, now: float) -> None:
        """Look again; forks that may still be under way count as made."""
        self.flying = {task: fork for task, fork in self.flying.items() if now - fork[0] < _IN_FLIGHT}
        flying = [sum(not thread for _, thread in self.flying.values()), len(self.flying)]
        self.seen, self.seen_at, self.since = tree.count(), time.monotonic(), flying
        self.cost = self.seen_at - now

    def grant(self, task: int, is_thread: bool, now: float) -> None:
        """Count one more."""
        self.since[1] += 1
        self.since[0] += not is_thread
        self.flying[task] = (now, is_thread)


class Notifier:
    """Answers for all workers of one session; its leader calls `handle` when a listener is readable.

    `closing`: set it before killing; no process or thread starts any more. `denials`: what was refused so far, by kind.
    `granted`: processes and threads that were let start so far. `copies`: the worker that may make one process which is
    a child of the leader, a copy of itself; it has been used up once it is None again.
    """

    def __init__(
        self,
        tree: ProcessTree,
        refusals: Mapping[int, Notify],
        *,
        processes: int,
        threads: int,
        folders: tuple[str, ...],
    ) -> None:
        """`refusals`: what to refuse, and under which kind to count it, by number; below `folders` modes may change."""
        self.tree = tree
        self.closing = False
        self.denials: Counter[Kind] = Counter()
        self.granted = 0
        self.copies: int | None = None
        self._folders = folders
        self._census = Census(processes, threads)
        self._refusals = refusals
        self._request = bytearray(_REQUEST.size)

    def worker_comes(self) -> None:
        """The leader is about to fork a worker, which asks nobody: count again before the next answer."""
        self._census.seen = _UNKNOWN

    def handle(self, listener: int) -> bool:
        """Answer what waits on `listener`, without blocking; False when no process uses it any more: close it."""
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        for _ in range(_BATCH):
            ready = poll.poll(0)
            if not ready:
                return True
            if not ready[0][1] & select.POLLIN:
                return False
            self._request[:] = bytes(_REQUEST.size)
            try:
                fcntl.ioctl(listener, _RECV, self._request, True)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR):
                    continue  # the asker died
                return False
            self._answer(listener)
        return True

    def _answer(self, listener: int) -> None:
        fields = _REQUEST.unpack(self._request)
        request = Request(id=fields[0], task=fields[1], number=fields[3], args=fields[6:])
        try:
            number = self._decide(listener, request)
        except Exception:  # a fault of ours must refuse, and never leave the guest waiting
            number = errno.EPERM
        flags = _CONTINUE if number is None else 0
        try:
            fcntl.ioctl(listener, _SEND, _ANSWER.pack(request.id, 0, -(number or 0), flags))
        except OSError:
            self._census.flying.pop(request.task, None)  # it died before it could do what was granted

    def _decide(self, listener: int, request: Request) -> int | None:
        """The error number to answer, 0 for done by us, None to let the call go ahead."""
        number = request.number
        if number in FORKS:
            return self._fork(request)
        if number in MODES or number in TIMES:
            return self._attributes(listener, request)
        if number in SIGNALS:
            return self._signal(request)
        if number in TARGETS:
            place = 1 if number in (141, 251) else 0
            return None if self._inside(request.integer(place)) else self._refuse("signals", errno.EPERM)
        refusal = self._refusals.get(number, Notify())
        return self._refuse(refusal.kind or "kernel", refusal.number)

    def _refuse(self, kind: Kind, number: int) -> int:
        self.denials[kind] += 1
        return number

    def _fork(self, request: Request) -> int | None:
        if self.closing:
            return errno.EAGAIN
        census, now = self._census, time.monotonic()
        flags = request.args[0] if FORKS[request.number] == "clone" else 0
        if flags & CLONE_PARENT:
            if request.task != self.copies or request.args[:2] != (CLONE_PARENT | signal.SIGCHLD, 0):
                return errno.EPERM  # of no kind: an order to copy may be carried out too late
            self.copies = None
        is_thread = bool(flags & CLONE_THREAD)
        census.flying.pop(request.task, None)  # the thread is back, so its former fork is done and visible
        if census.full(is_thread):
            if now - census.seen_at > min(_STALE, 2 * census.cost):
                census.recount(self.tree, now)
            if kind := census.full(is_thread):
                return self._refuse(kind, errno.EAGAIN)
        census.grant(request.task, is_thread, now)
        self.granted += 1
        return None

    def _attributes(self, listener: int, request: Request) -> int:
        def still_waiting() -> bool:
            try:
                fcntl.ioctl(listener, _ID_VALID, struct.pack("=Q", request.id))
            except OSError:
                return False
            return True

        try:
            Asker(self.tree, request.task, self._folders, still_waiting).change(request.number, request.args)
        except Refused:
            return self._refuse("permissions", errno.EPERM)
        except OSError as error:
            return error.errno or errno.EPERM
        return 0

    def _signal(self, request: Request) -> int | None:
        target = request.integer(0)
        if SIGNALS[request.number] != "kill":
            inside = target > 0 and self._inside(target)
        elif target == 0:
            inside = True  # its own group; a worker starts a session of its own
        elif target > 0:
            inside = self._inside(target)
        else:
            inside = target != -1 and self.tree.group_inside(-target)
        if inside:
            return None
        if target > 0 and self.tree.status_of(target) is None:
            return errno.ESRCH
        return self._refuse("signals", errno.EPERM)

    def _inside(self, task: int) -> bool:
        return task > 0 and self.tree.contains(task)


_SENTENCES: Final[dict[Kind, str]] = {
    "network": "There is no network in this session; upload files or install packages through the tools instead.",
    "trace": "Looking into other processes is not possible in this session.",
    "namespaces": "Mounts and namespaces cannot be changed in this session.",
    "kernel": "This kernel interface is closed in this session.",
    "signals": "Signals and priorities can only be set for processes of this session.",
    "permissions": "Modes and times can only be changed for files in the session's folder.",
    "processes": "The session has reached its limit of processes.",
    "threads": "The session has reached its limit of threads.",
}


def explain(kind: Kind) -> str:
    """A sentence for the reader of a result: why the kernel refused."""
    return _SENTENCES[kind]
