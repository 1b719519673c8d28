"""Guard: what holds one session from its leader's side: its processes, what they use, and their end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable

from executor.local.cell import StopReason
from executor.results import Language
from executor.sandbox.confinement import Entrance, Sandbox
from executor.sandbox.limits import MIB, RESERVED, STACKS
from executor.sandbox.processes import ProcessTree
from executor.sandbox.syscalls import Kind

LOOK_EVERY = 0.05
"""Seconds between two looks at the memory while a cell runs."""

LOOK_IDLE = 1.0
"""The same afterwards, while background processes run or the memory changes."""

FOLDER_EVERY = 0.5
"""Seconds between two looks at the folder: walking it is dearer."""

DEEP_EVERY = 10
"""Every so many looks also find memory that is only mapped."""

NEWSWORTHY = 16 * MIB
"""Change of memory in bytes that the server is told about."""

KILL_DEADLINE = 3.0

_TICK = 1 / os.sysconf("SC_CLK_TCK")


class Guard:
    """Watches the processes of one session; lives in its leader, which making one deprives of every privilege."""

    def __init__(self, sandbox: Sandbox, folder: str, *, uid: int | None) -> None:
        self._confinement = sandbox.confine(folder, uid=uid)
        self._limits = sandbox.limits
        self._tree = self._confinement.tree
        self._workers: set[int] = set()
        self._listeners: dict[int, int] = {}
        self._running = False
        self._next = float("inf")
        self._looks = 0
        self._next_folder = 0.0
        self._denied: Counter[Kind] = Counter()
        self._alone_at = 0
        self._figures: dict[str, str] = {}
        self._memory = 0
        self._weight = 0
        self._has_news = False

    @property
    def folder(self) -> str:
        """Where the session's folder is, as the leader and the workers see it."""
        return self._confinement.folder

    @property
    def proc(self) -> int:
        """A handle on the /proc in which we are."""
        return self._tree.proc

    @property
    def init(self) -> int | None:
        """The process that must not end while the session lives; None where there is none."""
        return self._confinement.init

    # For the leader's loop

    def entrance(self, language: Language) -> Entrance:
        """What shuts a new worker in."""
        # Python turns a refused allocation into a MemoryError; V8 reserves far more than it uses
        return self._confinement.entrance(slack=STACKS if language == "python" else RESERVED)

    @property
    def worker_parent(self) -> int:
        """What a worker sees as its parent's process id."""
        return self._confinement.worker_parent

    def answer(self, listener: int) -> bool:
        """Decide on the system calls that wait for us; False when nobody uses the listener any more."""
        return self._confinement.notifier.handle(listener)

    def worker_started(self, pid: int) -> None:
        """A worker of ours was forked."""
        self._workers.add(pid)

    def may_copy(self, worker: int | None) -> None:
        """This worker is asked for a copy of itself, and may make that one a child of ours; None: no more."""
        self._confinement.notifier.copies = worker

    def worker_ended(self, pid: int, *, alone: bool) -> None:
        """A worker was reaped; unless it ended `alone`, what it had started and left to us ends with it."""
        self._workers.discard(pid)
        self._next = min(self._next, time.monotonic() + LOOK_IDLE)  # what it held is free
        if not alone:
            self._end(lambda: self._tree.members(sparing=self._workers))

    def cell_started(self) -> None:
        """Look often from now on."""
        self._running = True
        self._next = time.monotonic() + LOOK_EVERY
        self._denied = Counter(self._confinement.notifier.denials)

    def cell_finished(self) -> list[Kind]:
        """Look seldom, until nothing is left running and the memory has settled: the cell may have been over before it
        was looked at, or have let go of much. What the kernel's layers refused meanwhile."""
        self._running = False
        self._next = time.monotonic() + LOOK_IDLE
        return list(Counter(self._confinement.notifier.denials) - self._denied)

    def next_look(self) -> float:
        """When `look` is due, monotonic seconds."""
        return self._next

    def look(self, now: float) -> StopReason | None:
        """Compare what the session uses with what it may use; the limit that is passed, if any."""
        self._next = now + (LOOK_EVERY if self._running else LOOK_IDLE)
        self._looks += 1
        usage = self._confinement.meter.read(deep=self._looks % DEEP_EVERY == 0)
        if abs(usage.memory - self._memory) > NEWSWORTHY:
            if self._running and self._memory:
                # to weigh takes milliseconds for each GB; what a cell has taken since it was weighed is its own
                self._weight = max(0, self._weight + usage.memory - self._memory)
            else:
                self._weight = self._confinement.meter.weight()
            self._memory, self._has_news = usage.memory, True
        elif not self._running and not self._background():
            # as it is now it stays: what a cell had taken, or who saved it, is gone
            self._next = float("inf")
        for pid in usage.opaque:
            # nothing honest hides its memory from us
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if usage.descriptors > self._limits.descriptors:
            self._figures["memory"] = (
                f"The session held {usage.descriptors:,} files and sockets open, its limit is "
                f"{self._limits.descriptors:,}: each of them takes memory of the kernel's."
            )
            return "memory"
        if usage.memory > self._limits.memory:
            self._figures["memory"] = (
                f"The session used {usage.memory // MIB} MiB of memory, its limit is {self._limits.memory // MIB} MiB."
            )
            if usage.at_most and self._others():
                self._figures["memory"] += (
                    " What its processes share is counted for each of them, as this host cannot tell it apart: use "
                    "fewer processes."
                )
            return "memory"
        if now < self._next_folder:
            return None
        meter = self._confinement.folder_meter
        if meter.step():
            # a folder that takes long to walk is walked less often
            self._next_folder = time.monotonic() + max(FOLDER_EVERY, 20 * (time.monotonic() - now))
        size = meter.bytes + usage.unlinked
        if size > self._limits.folder_bytes or meter.files > self._limits.folder_files:
            self._figures["disk"] = (
                f"The session's folder holds {size // MIB} MiB in {meter.files:,} files, its limits are "
                f"{self._limits.folder_bytes // MIB} MiB and {self._limits.folder_files:,} files. "
                "Delete what is not needed."
            )
            return "disk"
        return None

    def news(self) -> int | None:
        """Bytes of memory that are the session's alone, where they have changed so much that the server should know."""
        had, self._has_news = self._has_news, False
        return self._weight if had else None

    def give_way(self, budget: int) -> None:
        """All sessions together are over `budget` bytes, and this one is the largest."""
        self._figures["memory"] = (
            f"All sessions together used more than the {budget // MIB} MiB of memory that they may, and this one, "
            f"with {self._weight // MIB} MiB, was the largest."
        )

    def why(self, limit: StopReason) -> str:
        """A sentence with the figure and the limit that was passed last."""
        return self._figures.get(limit, f"The session passed its limit of {limit}.")

    def stats(self) -> dict[str, int]:
        """Memory in bytes (what is shared counts by its share), processes and threads, now."""
        usage = self._confinement.meter.read()
        return {"memory": self._confinement.meter.weight(), "processes": usage.processes, "threads": usage.threads}

    def background(self) -> int:
        """How many processes are alive that are no workers."""
        return sum(self._is_alive(pid) for pid in self._others())

    def only_answers(self, worker: int) -> bool:
        """Whether a worker that runs no cell cannot act by itself: it has one thread, which waits for an order."""
        return self._tree.threads_of(worker) == 1

    # Ends

    def kill(self, worker: int) -> None:
        """SIGKILL a worker and all that it or nobody is the parent of; the other workers' processes are spared."""
        others = self._workers - {worker}
        self._end(lambda: self._tree.members(sparing=others))

    def kill_alone(self, pid: int) -> None:
        """SIGKILL a worker that is not reaped yet and its descendants; orphans, which may be anybody's, are spared."""
        self._end(lambda: [pid, *ProcessTree(pid, self._tree.proc).members()])

    def kill_since(self, moment: float) -> None:
        """SIGKILL what was started after that monotonic moment, workers spared."""
        since = _ticked(moment)
        self._end(lambda: [pid for pid in self._others() if self._born(pid) >= since])

    def kill_copies(self, worker: int, moment: float) -> None:
        """SIGKILL what a worker has made of itself since that monotonic moment: of its group, and no child of its."""
        since = _ticked(moment)
        self._end(lambda: [pid for pid in self._others() if self._born(pid) >= since and self._is_copy(pid, worker)])

    def kill_background(self) -> None:
        """SIGKILL everything but the workers."""
        self._end(self._others)

    def end_session(self) -> None:
        """SIGKILL everything, for good."""
        self._confinement.end()

    # Inside

    def _others(self) -> list[int]:
        return [pid for pid in self._tree.members() if pid not in self._workers]

    def _background(self) -> bool:
        """Whether anything but the workers is alive; nothing can be where nothing was let start since the last look."""
        notifier = self._confinement.notifier
        if self._confinement.sandbox.notifier and notifier.granted == self._alone_at:
            return False
        granted = notifier.granted
        if self._others():
            return True
        self._alone_at = granted
        return False

    def _end(self, condemned: Callable[[], list[int]]) -> None:
        """Kill while nothing can fork, so that no chain of forks outruns us."""
        self._confinement.notifier.closing = True
        try:
            end_all(condemned, zombies=self._workers, deadline=KILL_DEADLINE)
        finally:
            self._confinement.notifier.closing = False

    def _born(self, pid: int) -> float:
        fields = self._stat(pid)
        return int(fields[19]) * _TICK if len(fields) > 19 else 0.0

    def _is_copy(self, pid: int, worker: int) -> bool:
        status = self._tree.status_of(pid)
        with contextlib.suppress(OSError):
            return status is not None and status[1] in (self._tree.root, self.init) and os.getpgid(pid) == worker
        return False

    def _is_alive(self, pid: int) -> bool:
        return self._stat(pid)[:1] not in ([], [b"Z"], [b"X"])

    def _stat(self, pid: int) -> list[bytes]:
        """What /proc/pid/stat says after the name, from the state on; nothing where the process is gone."""
        stat = self._tree.read(f"{pid}/stat", 4096)
        # the name in parentheses may hold anything, the last one closes it
        return stat[stat.rfind(b")") + 2 :].split()


def _ticked(moment: float) -> float:
    """A monotonic moment as /proc tells when a process was born: in ticks since boot, so a little less."""
    # the clock that stops in suspend and the other differ there
    return moment - time.monotonic() + time.clock_gettime(time.CLOCK_BOOTTIME) - 2 * _TICK


def kill_orphans(keep: set[int]) -> None:
    """In the zygote: end every child of ours, and what is below it, but for those in `keep` and what is below them."""
    tree = ProcessTree(os.getpid(), os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    try:
        end_all(lambda: tree.members(sparing=keep), deadline=KILL_DEADLINE)
    finally:
        os.close(tree.proc)


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
