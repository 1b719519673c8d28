"""Guard: what holds one session from its leader's side: its processes, what they use, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from executor.local.cell import StopReason
from executor.local.workspace import Workspace
from executor.results import Language
from executor.sandbox.processes import ProcessTree
from executor.sandbox.report import SandboxReport
from executor.settings import Settings

LOOK_EVERY = 0.05
"""Seconds between two looks at the memory while a cell runs."""

LOOK_IDLE = 1.0
"""The same while only background processes do."""

FOLDER_EVERY = 0.5
"""Seconds between two looks at the folder: walking it is dearer."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = 1 / os.sysconf("SC_CLK_TCK")
_MIB = 2**20


class Walls:
    """What is prepared once, in the zygote, for every session."""

    def __init__(self, settings: Settings, report: SandboxReport) -> None:
        self.settings = settings
        self.report = report

    @classmethod
    def build(cls, settings: Settings) -> Walls:
        """Probe the host and prepare the layers."""
        return cls(settings, SandboxReport("weak", {}))

    def identity(self) -> int | None:
        """The uid and gid of the next session; None where all share ours."""
        return None

    def kill_orphans(self, *, keep: set[int]) -> None:
        """In the zygote: end what a dead leader left to us; `keep` are the leaders that live."""
        tree = ProcessTree(os.getpid(), os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        try:
            end_all(lambda: _without(tree, keep), deadline=5)
        finally:
            os.close(tree.proc)


class Guard:
    """Watches the processes of one session; lives in its leader."""

    def __init__(self, folder: Path, settings: Settings, walls: Walls, identity: int | None) -> None:
        self._folder = folder
        self._settings = settings
        self._walls = walls
        self._identity = identity
        proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._tree = ProcessTree(os.getpid(), proc)
        self._workers: set[int] = set()
        self._running = False
        self._next = float("inf")
        self._next_folder = 0.0
        self._figures: dict[str, str] = {}

    # For the leader's loop

    def entrance(self, language: Language) -> Callable[[], None]:
        """What a new worker calls to be shut in."""
        return lambda: None

    def worker_started(self, pid: int) -> None:
        """A worker of ours was forked."""
        self._workers.add(pid)

    def worker_ended(self, pid: int) -> None:
        """A worker was reaped: what it had started and left to us ends with it."""
        self._workers.discard(pid)
        end_all(lambda: _without(self._tree, self._workers), deadline=5)

    def cell_started(self) -> None:
        """Look often from now on."""
        self._running = True
        self._next = time.monotonic() + LOOK_EVERY

    def cell_finished(self) -> None:
        """Look seldom, and only while something is left running."""
        self._running = False
        self._next = time.monotonic() + LOOK_IDLE if self._background() else float("inf")

    def next_look(self) -> float:
        """When `look` is due, monotonic seconds."""
        return self._next

    def look(self, now: float, workspace: Workspace) -> StopReason | None:
        """Compare what the session uses with what it may use; the limit that is passed, if any."""
        if not self._running and not self._background():
            self._next = float("inf")
            return None
        self._next = now + (LOOK_EVERY if self._running else LOOK_IDLE)
        used, limit = self._memory(self._tree.members()), self._settings.session_memory_mb * _MIB
        if used > limit:
            self._figures["memory"] = (
                f"The session used {used // _MIB} MiB of memory, its limit is {limit // _MIB} MiB."
            )
            return "memory"
        if now >= self._next_folder:
            size, count = workspace.usage()
            # a folder that takes long to walk is walked less often
            self._next_folder = time.monotonic() + max(FOLDER_EVERY, 20 * (time.monotonic() - now))
            if size > workspace.max_bytes or count > workspace.max_files:
                self._figures["disk"] = (
                    f"The session's folder holds {size // _MIB} MiB in {count:,} files, its limits are "
                    f"{workspace.max_bytes // _MIB} MiB and {workspace.max_files:,} files. Delete what is not needed."
                )
                return "disk"
        return None

    def why(self, limit: StopReason) -> str:
        """A sentence with the figure and the limit that was passed last."""
        return self._figures.get(limit, f"The session passed its limit of {limit}.")

    def stats(self) -> dict[str, int]:
        """Memory in bytes, processes and threads, now."""
        members = self._tree.members()
        processes, threads = self._tree.count()
        return {"memory": self._memory(members), "processes": processes, "threads": threads}

    # Ends

    def kill(self, worker: int) -> None:
        """SIGKILL a worker and all that it or nobody is the parent of; the other workers' processes are spared."""
        others = self._workers - {worker}
        end_all(lambda: _without(self._tree, others), zombies=self._workers, deadline=2)

    def kill_since(self, moment: float) -> None:
        """SIGKILL what was started after that monotonic moment, workers spared."""
        # as /proc tells it: in ticks since boot; the clock that stops in suspend and the other differ there
        since = moment - time.monotonic() + time.clock_gettime(time.CLOCK_BOOTTIME) - 2 * _TICK
        end_all(
            lambda: [pid for pid in self._tree.members() if pid not in self._workers and self._born(pid) >= since],
            deadline=2,
        )

    def kill_background(self) -> None:
        """SIGKILL everything but the workers."""
        end_all(lambda: [pid for pid in self._tree.members() if pid not in self._workers], deadline=2)

    def end_session(self) -> None:
        """SIGKILL everything, for good."""
        end_all(self._tree.members, deadline=5)

    # Inside

    def _background(self) -> bool:
        return any(pid not in self._workers for pid in self._tree.members())

    def _memory(self, pids: Iterable[int]) -> int:
        """Bytes that are the processes' own: anonymous and shared-anonymous pages, not mapped files."""
        total = 0
        for pid in pids:
            fields = self._tree.read(f"{pid}/statm", 256).split()
            if len(fields) > 2:
                total += (int(fields[1]) - int(fields[2])) * _PAGE
        return total

    def _born(self, pid: int) -> float:
        stat = self._tree.read(f"{pid}/stat", 4096)
        # the name in parentheses may hold anything, the last one closes it
        fields = stat[stat.rfind(b")") + 2 :].split()
        return int(fields[19]) * _TICK if len(fields) > 19 else 0.0


def end_all(
    condemned: Callable[[], list[int]], *, deadline: float, zombies: set[int] | frozenset[int] = frozenset()
) -> None:
    """SIGKILL whatever `condemned` lists until it lists nothing twice in a row, at most `deadline` seconds.

    Zombies among our children are reaped, but for those in `zombies`, whose exit somebody else waits for.
    """
    until = time.monotonic() + deadline
    quiet = 0
    pause = 0.0005
    while quiet < 2 and time.monotonic() < until:
        left = [pid for pid in condemned() if not _gone(pid, reap=pid not in zombies)]
        quiet = 0 if left else quiet + 1
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if left:
            time.sleep(pause)
            pause = min(pause * 1.5, 0.02)


def _gone(pid: int, *, reap: bool) -> bool:
    try:
        if reap:
            return os.waitpid(pid, os.WNOHANG)[0] == pid
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return False  # not a child of ours: its parent reaps it, or dies and leaves it to us


def _without(tree: ProcessTree, roots: set[int]) -> list[int]:
    """The members of a tree that are not in one of the subtrees under `roots`."""
    spared = set(roots)
    for root in roots:
        spared.update(ProcessTree(root, tree.proc).members())
    return [pid for pid in tree.members() if pid not in spared]
