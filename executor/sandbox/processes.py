"""The processes of a session: who belongs to it, how many there are, and how to end every one of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

_WALL = 0x40000000  # __WALL: children with any exit signal


@dataclass(frozen=True, slots=True)
class Killed:
    """How many processes were killed, the wait statuses of those that were children of ours, and who is still there."""

    count: int
    statuses: dict[int, int] = field(default_factory=dict)
    left: tuple[int, ...] = ()


class ProcessTree:
    """All descendants of `root` (the leader, a subreaper), but for those in `trusted`, whose own descendants count.

    `proc` is a handle on the /proc in which `root` has that number: a leader's mounts may change under it.
    """

    def __init__(self, root: int, proc: int) -> None:
        self.root = root
        self.proc = proc
        self.trusted: set[int] = set()

    @property
    def walkable(self) -> bool:
        """Whether the kernel lists children (CONFIG_PROC_CHILDREN), without which every tree looks empty."""
        try:
            os.stat(f"{self.root}/task/{self.root}/children", dir_fd=self.proc)
        except OSError:
            return False
        return True

    def members(self, *, sparing: Iterable[int] = ()) -> list[int]:
        """Process ids of the session, parents before children; zombies are among them.

        Those in `sparing` are not, nor what is below them: the walk never goes there, so it cannot come upon a child
        that one of them has just forked.
        """
        found, queue = [], [self.root]
        seen = {self.root, *sparing}
        while queue:
            for child in self._children(queue.pop()):
                if child in seen:
                    continue
                seen.add(child)
                queue.append(child)
                if child not in self.trusted:
                    found.append(child)
        return found

    def count(self) -> tuple[int, int]:
        """(processes, threads) alive now, over the whole session."""
        members = self.members()
        return len(members), sum(map(self.threads_of, members))

    def threads_of(self, pid: int) -> int:
        """Number of threads of a process, 0 when it is gone."""
        try:
            return os.stat(f"{pid}/task", dir_fd=self.proc).st_nlink - 2
        except OSError:
            return 0

    def contains(self, task: int) -> bool:
        """Whether the process or thread with this number belongs to the session."""
        for _ in range(4096):
            status = self.status_of(task)
            if status is None:
                return False
            tgid, parent = status
            if tgid in self.trusted or tgid == self.root:
                return False
            if parent == self.root or parent in self.trusted:
                return True
            if parent <= 1:
                return False
            task = parent
        return False

    def group_inside(self, group: int) -> bool:
        """Whether the process group is the session's. Groups never span sessions of setsid(2): one member tells."""
        for pid in self.members():
            with suppress(OSError):
                if os.getpgid(pid) == group:
                    return True
        return False

    def status_of(self, task: int) -> tuple[int, int] | None:
        """(process id, parent's process id) of a task, None when it is gone."""
        text = self.read(f"{task}/status", 4096)
        fields = dict(line.split(b":\t", 1) for line in text.splitlines() if b":\t" in line)
        try:
            return int(fields[b"Tgid"]), int(fields[b"PPid"])
        except (KeyError, ValueError):
            return None

    def read(self, path: str, size: int = 65536) -> bytes:
        """The start of a file of /proc; empty when the process is gone or hides."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        except OSError:
            return b""
        try:
            return os.read(fd, size)
        except OSError:
            return b""
        finally:
            os.close(fd)

    def read_all(self, path: str, limit: int = 1 << 23) -> bytes:
        """A whole file of /proc, at most `limit` bytes; empty when the process is gone or hides."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.proc)
        except OSError:
            return b""
        text = b""
        try:
            while len(text) < limit and (more := os.read(fd, 65536)):
                text += more
        except OSError:
            pass
        finally:
            os.close(fd)
        return text

    def names(self, path: str) -> list[str]:
        """Names in a folder of /proc; none when the process is gone. Raises PermissionError when it hides."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.proc)
        except PermissionError:
            raise
        except OSError:
            return []
        try:
            return os.listdir(fd)
        except OSError:
            return []
        finally:
            os.close(fd)

    def kill(self, *, trusted_too: bool = False, deadline: float = 5.0) -> Killed:
        """SIGKILL everything until nothing is left, at most `deadline` seconds; reaps what are children of ours.

        Set the notifier to closing before: forks then wait for an answer that never comes, so a chain of forks cannot
        outrun the walk. `trusted_too` ends the session's init as well: for good, as no worker can start after it.
        """
        end = time.monotonic() + deadline
        killed: set[int] = set()
        statuses: dict[int, int] = {}
        quiet, pause = 0, 0.0005
        while True:
            members = self.members()
            if trusted_too:
                members += [pid for pid in self.trusted if pid not in statuses and self.status_of(pid)]
            for pid in members:
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            killed.update(members)
            statuses.update(self._reap(members))
            quiet = 0 if members else quiet + 1
            # twice in a row: a granted fork may have been under way while the first walk looked
            if quiet == 2 or time.monotonic() > end:
                return Killed(len(killed), statuses, tuple(self.members()))
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)

    @staticmethod
    def _reap(pids: list[int]) -> Iterator[tuple[int, int]]:
        for pid in pids:
            with suppress(ChildProcessError):
                done, status = os.waitpid(pid, os.WNOHANG | _WALL)
                if done:
                    yield done, status

    def _children(self, pid: int) -> list[int]:
        found: list[int] = []
        with suppress(PermissionError):
            for task in self.names(f"{pid}/task"):
                found += map(int, self.read(f"{pid}/task/{task}/children", 1 << 20).split())
        return found
