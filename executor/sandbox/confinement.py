"""The whole sandbox in three steps: prepared in the zygote, put around a session by its leader, entered by each worker.

Order, and what each step may still do:
1. zygote: `Sandbox.prepare(...)`, once. Opens handles, assembles the filter, builds the view of files.
2. leader, forked by the zygote: `sandbox.confine(folder)`, once, first thing. Namespaces, then the session's own user,
   then no privilege at all.
3. leader: `entrance = confinement.entrance()`; fork; the child calls `entrance.enter()` as the last thing of ours, the
   leader `entrance.admit()` and then polls the listener that it gave.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from executor.errors import BackendFailed
from executor.sandbox import identity, landlock, namespaces, paths, seccomp
from executor.sandbox.kernel import LINUX, PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, X86_64, prctl
from executor.sandbox.landlock import Grant, Handled, Ruleset
from executor.sandbox.limits import RESERVED, Limits
from executor.sandbox.namespaces import SHARED_MEMORY, TEMPORARY
from executor.sandbox.notifier import Notifier
from executor.sandbox.processes import Killed, ProcessTree
from executor.sandbox.syscalls import Surroundings, refusals, rules
from executor.sandbox.usage import FolderMeter, Meter

_PR_GET_PDEATHSIG: Final = 2
_HIGH: Final = 200
"""Our own descriptors in a worker sit from here on, out of the way of those that it is given."""
_ADMISSION: Final = 20.0
_NICE: Final = 5


@dataclass(frozen=True, slots=True)
class Layers:
    """Which layers to put on; the probe turns off what does not hold here, tests what they want to do without."""

    namespaces: bool = True
    landlock: bool = True
    landlock_abi: int | None = None
    filter: bool = True
    notifier: bool = True
    own_user: bool = True


class Sandbox:
    """Everything that can be made ready before a session exists; lives in the zygote."""

    def __init__(
        self, limits: Limits, layers: Layers, grants: list[Grant], links: list[tuple[str, str]], scratch: str | None
    ) -> None:
        self.limits = limits
        self.layers = layers
        self.why: dict[str, str] = {}
        self._grants = grants
        self.handled: Handled | None = landlock.handled(layers.landlock_abi) if layers.landlock and LINUX else None
        self.view: namespaces.View | None = None
        if layers.namespaces and scratch is not None and LINUX:
            view = namespaces.View(scratch)
            try:
                view.build(grants, links)
                self.view = view
            except OSError as error:
                self.why["namespaces"] = str(error)
        self.own_user = layers.own_user and identity.may_change_user()
        self.notifier = layers.notifier and layers.filter and X86_64 and LINUX and seccomp.notification_available()
        self._assemble()

    @classmethod
    def prepare(
        cls,
        limits: Limits,
        *,
        state: str,
        extra: Iterable[str] = (),
        layers: Layers | None = None,
    ) -> Sandbox:
        """Make ready, in a process with one thread. `state`: the folder of all sessions; `extra`: more to read and run.

        The process then is in a mount namespace of its own (and in a user namespace where it may not mount), with the
        same root; never delete `state` from there, its `.view-…` holds mounts. Raises SettingsError where `state` would
        be readable.
        """
        if not LINUX:
            return cls(limits, layers or Layers(), [], [], None)
        grants, links = paths.readable(extra, secret=[state])
        return cls(
            limits, layers or Layers(), grants, links, f"{os.path.realpath(state)}/{namespaces.VIEW}{os.getpid()}"
        )

    def without(self, **off: bool) -> None:
        """Turn layers off that the probe found not to hold: `namespaces=False`, `own_user=False`, ..."""
        self.layers = replace(self.layers, **off)
        if not self.layers.namespaces:
            self.view = None
        if not self.layers.landlock:
            self.handled = None
        self.own_user = self.own_user and self.layers.own_user
        self.notifier = self.notifier and self.layers.notifier and self.layers.filter
        self._assemble()

    def surroundings(self) -> Surroundings:
        """What the filter may leave to other layers."""
        inside = self.view is not None
        return Surroundings(
            pids=inside,
            signals=self.handled is not None and self.handled.signals,
            truncate=self.handled is not None and self.handled.truncate,
            unix_sockets=inside,
            notifier=self.notifier,
        )

    def _assemble(self) -> None:
        table = rules(self.surroundings())
        possible = self.layers.filter and X86_64 and LINUX
        self.filter: seccomp.Filter | None = seccomp.Filter(seccomp.assemble(table)) if possible else None
        """The program that workers put on, None where there is none for this machine."""
        self.refusals = refusals(table)

    def confine(self, folder: str, *, uid: int | None = None) -> Confinement:
        """In a leader just forked: namespaces, the session's own user `uid` (owner of `folder`), no privileges.

        About 2 ms with namespaces, 0.3 ms without. Raises OSError.
        """
        return Confinement(self, os.path.realpath(folder), uid if self.own_user else None)

    def rule_all(self, ruleset: Ruleset) -> None:
        """Grant everything that may be read to a ruleset."""
        for grant in self._grants:
            ruleset.allow(grant.fd, grant.rights, is_file=grant.is_file)

    def close_handles(self) -> None:
        """In a leader, once its ruleset is made: the handles have done their work."""
        for grant in self._grants:
            with suppress(OSError):
                os.close(grant.fd)
        self._grants = []


class Confinement:
    """One session's sandbox; lives in its leader, which it has made powerless.

    `folder`: the session's folder as the leader and its workers see it from now on. `tree`, `notifier`, `meter` and
    `folder_meter` watch the session. `worker_parent`: what getppid() says in a worker.
    """

    def __init__(self, sandbox: Sandbox, folder: str, uid: int | None) -> None:
        self.sandbox = sandbox
        self.limits = sandbox.limits
        proc = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.tree = ProcessTree(os.getpid(), proc)
        self.inside = sandbox.view is not None
        self.init: int | None = None
        self._ruleset: Ruleset | None = None
        self.folder = folder
        death_signal = _death_signal()
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        temporary = f"{folder}/.tmp"
        with suppress(FileExistsError):
            os.mkdir(temporary, 0o700)
            if uid is not None:
                os.chown(temporary, uid, uid)
        if sandbox.view is not None:
            self.init = sandbox.view.enter(folder, shared_memory=self.limits.shared_memory, uid=uid, gid=uid)
            self.tree.trusted.add(self.init)
            self.folder = namespaces.FOLDER
        identity.drop(uid, uid)
        identity.hide()
        if death_signal:
            prctl(PR_SET_PDEATHSIG, death_signal)  # taking another user has cleared it
        self._writable: tuple[str, ...] = (self.folder,)
        if sandbox.view is not None:
            self._writable += (*((TEMPORARY,) if sandbox.view.temporary else ()), SHARED_MEMORY)
        self._make_ruleset()
        self.notifier = Notifier(
            self.tree,
            sandbox.refusals,
            processes=self.limits.processes,
            threads=self.limits.threads,
            folders=self._writable,
        )
        self.meter = Meter(
            self.tree,
            memory_limit=self.limits.memory,
            folders=tuple(place for place in self._writable if place != SHARED_MEMORY),
            shared_memory=SHARED_MEMORY if self.inside else None,
            open_workers=sandbox.handled is not None,
        )
        self.folder_meter = FolderMeter((self.folder,), proc)

    @property
    def worker_parent(self) -> int:
        """What getppid() says in a worker: nothing outside of its namespace has a number there."""
        return 0 if self.inside else self.tree.root

    def _make_ruleset(self) -> None:
        handled = self.sandbox.handled
        if handled is None:
            return
        ruleset = Ruleset(handled)
        self.sandbox.rule_all(ruleset)
        own = landlock.grants(self._writable, landlock.WRITE)
        if self.inside:
            own += landlock.grants(("/proc",), landlock.READ) + landlock.grants(("/",), landlock.READ_DIR)
        for grant in own:
            ruleset.allow(grant.fd, grant.rights, is_file=grant.is_file)
            os.close(grant.fd)
        high = fcntl.fcntl(ruleset.fd, fcntl.F_DUPFD_CLOEXEC, _HIGH)
        ruleset.close()
        ruleset.fd = high
        self._ruleset = ruleset
        self.sandbox.close_handles()

    def entrance(self, *, slack: int = RESERVED) -> Entrance:
        """For one worker that is about to be forked; `slack` as in `Limits.rlimits`: STACKS for Python itself."""
        self.notifier.worker_comes()
        return Entrance(self.limits, slack, self.sandbox.filter, self._ruleset, self.sandbox.notifier)

    def end(self, *, deadline: float = 5.0) -> Killed:
        """Kill the whole session for good; where it has an init of its own, the kernel helps."""
        self.notifier.closing = True
        return self.tree.kill(trusted_too=True, deadline=deadline)


class Entrance:
    """The way in of one worker. Its descriptors `fds` must be open in the child when `enter` is called."""

    def __init__(
        self, limits: Limits, slack: int, filter_: seccomp.Filter | None, ruleset: Ruleset | None, notifier: bool
    ) -> None:
        self._limits = limits
        self._slack = slack
        self._filter = filter_
        self._ruleset = ruleset
        self._listen = notifier and filter_ is not None
        ours, theirs = socket.socketpair()
        high = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, _HIGH)
        theirs.close()
        self._ours, self._theirs = ours, socket.socket(fileno=high)

    @property
    def fds(self) -> tuple[int, ...]:
        """Descriptors, all from 200 up, that `enter` needs and closes."""
        return (self._theirs.fileno(), *([self._ruleset.fd] if self._ruleset else []))

    def enter(self) -> None:
        """In the worker: shut the calling thread in, for good. Nothing but 0, 1, 2 and its own may be open.

        Under 1 ms. The leader must be in `admit`, or come to it. Raises OSError, after which the worker must exit.
        """
        identity.no_new_privileges()
        if self._ruleset is not None:
            # raising the score is everybody's right, but only on files that are one's own: a hidden process's are not
            identity.show()
        _volunteer_for_the_oom_killer()
        os.nice(_NICE)
        if self._ruleset is not None:
            self._ruleset.restrict()
            self._ruleset.close()
        listener = self._filter.install(listener=self._listen) if self._filter else None
        # the limit on descriptors also limits what may be on its way in sockets, for all of a user's together
        seccomp.send_listener(self._theirs, listener)
        self._theirs.close()
        self._limits.apply(self._slack)

    def admit(self) -> int | None:
        """In the leader, after the fork: wait until the worker is shut in; the listener to poll, None without one.

        Raises BackendFailed when the worker died before.
        """
        self._theirs.close()
        self._ours.settimeout(_ADMISSION)
        try:
            with self._ours:
                said, fds, _, _ = socket.recv_fds(self._ours, 16, 1)
        except OSError as error:
            raise BackendFailed(f"A worker did not enter the sandbox: {error}. Its standard error says more.") from None
        if said != b"+":
            raise BackendFailed("A worker died on its way into the sandbox. Its standard error says more.")
        for fd in fds:
            os.set_inheritable(fd, False)
        return fds[0] if fds else None


def _death_signal() -> int:
    """The signal that the calling process gets when its parent dies, 0 for none."""
    number = ctypes.c_int(0)
    prctl(_PR_GET_PDEATHSIG, ctypes.addressof(number))
    return signal.Signals(number.value) if number.value else 0


def _volunteer_for_the_oom_killer() -> None:
    """When the machine runs out of memory, a guest goes first."""
    with suppress(OSError):
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, b"1000")
        finally:
            os.close(fd)
