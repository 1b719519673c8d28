"""What the guest may ask of the kernel: every x86_64 system call that is not simply allowed, with its verdict.

A deny list: allow lists with a kill break ordinary programs at random. It is closed at the top: numbers that are newer
than this table do not exist for the guest. Numbers: Linux, arch/x86/entry/syscalls/syscall_64.tbl. Tests on arguments
look at the low 32 bits, which is all that the kernel reads of the integers tested here; pointers are never followed.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["network", "trace", "namespaces", "kernel", "signals", "permissions", "processes", "threads"]
"""What a refusal is counted under."""

NEWEST: Final = 462
"""mseal, Linux 6.10: the newest call that this table has judged."""

UNASSIGNED: Final = range(335, 424)
"""Numbers that x86_64 uses for the kernel's own probes at most: two that pass every filter, and kill who calls them."""


@dataclass(frozen=True, slots=True)
class Errno:
    """The call fails with this number; 0: it pretends to have worked."""

    number: int


@dataclass(frozen=True, slots=True)
class Notify:
    """The leader decides; with `kind`, it counts a refusal and answers `number`."""

    kind: Kind | None = None
    number: int = errno.EPERM


@dataclass(frozen=True, slots=True)
class Allow:
    """The call goes ahead."""


Verdict = Errno | Notify | Allow


@dataclass(frozen=True, slots=True)
class Test:
    """Holds where the masked argument is (or with `other`, is not) one of `values`; `high`: the upper 32 bits."""

    argument: int
    values: tuple[int, ...]
    mask: int = 0xFFFFFFFF
    other: bool = False
    high: bool = False


@dataclass(frozen=True, slots=True)
class Clause:
    """`verdict` where all `tests` hold."""

    verdict: Verdict
    tests: tuple[Test, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """The first clause that holds decides, else `otherwise`."""

    otherwise: Verdict
    clauses: tuple[Clause, ...] = ()


ALLOW: Final = Allow()
PRETEND: Final = Errno(0)
EPERM: Final = Errno(errno.EPERM)
ENOSYS: Final = Errno(errno.ENOSYS)
UNSUPPORTED: Final = Errno(errno.EOPNOTSUPP)

# Calls that the leader answers itself, by number
FORKS: Final = {56: "clone", 57: "fork", 58: "vfork"}
MODES: Final = {90: "chmod", 91: "fchmod", 268: "fchmodat", 452: "fchmodat2"}
TIMES: Final = {132: "utime", 235: "utimes", 261: "futimesat", 280: "utimensat"}
SIGNALS: Final = {62: "kill", 200: "tkill", 234: "tgkill", 129: "rt_sigqueueinfo", 297: "rt_tgsigqueueinfo"}
TARGETS: Final = {
    141: "setpriority",
    142: "sched_setparam",
    144: "sched_setscheduler",
    203: "sched_setaffinity",
    251: "ioprio_set",
    302: "prlimit64",
    314: "sched_setattr",
}

CLONE_THREAD: Final = 0x10000
CLONE_PARENT: Final = 0x8000
"""Makes a child of one's own parent: of the leader, where a worker does it. Refused, but for a worker's copy."""
_CLONE_NEW: Final = 0x7E020000
"""CLONE_NEW* of any namespace."""

_O_CREAT, _O_TMPFILE, _SUID_SGID = 0o100, 0o20000000, 0o6000
_AF_UNIX, _SOCK_STREAM, _SOL_SOCKET = 1, 1, 1


def _each(numbers: Iterable[int], verdict: Verdict) -> dict[int, Rule]:
    return {number: Rule(verdict) for number in numbers}


def _special_bits(mode: int, flags: int | None = None) -> tuple[Clause, ...]:
    """Refuse to make a file with suid or sgid bits; `mode` and `flags` are places of arguments."""
    bits = Test(mode, (0,), mask=_SUID_SGID, other=True)
    if flags is None:
        return (Clause(EPERM, (bits,)),)
    return tuple(
        Clause(EPERM, (Test(flags, (bit,), mask=bit), bits))  # the mode of an open that makes nothing is garbage
        for bit in (_O_CREAT, _O_TMPFILE)
    )


_IOCTL: Final = Rule(
    ALLOW,
    (
        # terminals: push input, console tricks, line disciplines
        Clause(EPERM, (Test(1, (0x5412, 0x541C, 0x541D, 0x5423)),)),
        # sockets: FIOSETOWN, SIOCSPGRP send SIGIO to anyone, others tell the host's interfaces; SIOCATMARK is harmless
        Clause(ALLOW, (Test(1, (0x8905,)),)),
        Clause(EPERM, (Test(1, (0x8900,), mask=0xFF00),)),
        # files: attributes outlive the session's rights, so only reading them (GETFLAGS, FIEMAP, FSGETXATTR)
        Clause(ALLOW, (Test(1, (0x80086601, 0xC020660B, 0x801C581F)),)),
        Clause(UNSUPPORTED, (Test(1, (0x6600, 0x5800, 0x7600), mask=0xFF00),)),
        # btrfs and clones: FICLONE, FICLONERANGE, FIDEDUPERANGE only
        Clause(ALLOW, (Test(1, (0x40049409, 0x4020940D, 0xC0189436)),)),
        Clause(UNSUPPORTED, (Test(1, (0x9400,), mask=0xFF00),)),
        # namespaces and pidfds
        Clause(EPERM, (Test(1, (0xB700, 0xFF00), mask=0xFF00),)),
    ),
)

# of the caller itself: pdeathsig, dumpable, keepcaps, name, seccomp mode, bounding set, TSC, securebits, timer slack,
# subreaper, no_new_privs, tid address, huge pages, ambient set, speculation, tagged addresses, mdwe, names of mappings
_PRCTL_HARMLESS: Final = (
    *(2, 3, 7, 8, 15, 16, 21, 23, 24, 25, 26, 27, 29, 30, 36, 37, 38, 39, 40, 41, 42, 47, 52, 53, 55, 56, 65, 66),
    0x53564D41,
)

_PRCTL: Final = Rule(
    Errno(errno.EINVAL),
    (
        # a worker must die with its leader: only SIGKILL may be asked for, anything else is taken and ignored
        Clause(ALLOW, (Test(0, (1,)), Test(1, (9,)))),
        Clause(PRETEND, (Test(0, (1,)),)),
        # a process that hides from the leader could hide memory, too
        Clause(ALLOW, (Test(0, (4,)), Test(1, (1,)))),
        Clause(PRETEND, (Test(0, (4,)),)),
        Clause(
            ALLOW,
            (
                Test(
                    0,
                    _PRCTL_HARMLESS,
                ),
            ),
        ),
    ),
)

_FIXED: Final[dict[int, Rule]] = {
    # hot calls first: they are met in this order
    2: Rule(ALLOW, _special_bits(2, 1)),  # open
    257: Rule(ALLOW, _special_bits(3, 2)),  # openat
    16: _IOCTL,
    # F_SETOWN, F_SETSIG, F_SETOWN_EX: SIGIO to anyone; F_SETLEASE, F_NOTIFY: stall or watch others
    72: Rule(ALLOW, (Clause(EPERM, (Test(1, (8, 10, 15, 1024, 1026)),)),)),
    157: _PRCTL,
    56: Rule(
        Notify(),
        (
            Clause(EPERM, (Test(0, (0,), mask=_CLONE_NEW, other=True),)),
            Clause(Notify(), (Test(0, (CLONE_PARENT,), mask=CLONE_PARENT),)),
        ),
    ),
    57: Rule(Notify()),
    58: Rule(Notify()),
    435: Rule(ENOSYS),  # clone3 hides its flags behind a pointer; libraries fall back to clone
    437: Rule(ENOSYS),  # openat2, the same
    85: Rule(ALLOW, _special_bits(1)),  # creat
    133: Rule(ALLOW, _special_bits(1)),  # mknod
    259: Rule(ALLOW, _special_bits(2)),  # mknodat
    **_each(MODES, Notify()),
    **_each(TIMES, Notify()),
    **_each((92, 93, 94, 260), PRETEND),  # chown family: tar and cp -p want it, nobody needs it
    **_each((188, 189, 190, 197, 198, 199), UNSUPPORTED),  # setxattr, removexattr: EPERM would break cp -p
    **_each((162, 306), PRETEND),  # sync, syncfs: the whole machine's disks
    285: Rule(UNSUPPORTED),  # fallocate fills a disk faster than anyone can watch; libc falls back to writing
    # network; socket(): below
    53: Rule(
        UNSUPPORTED,  # a datagram pair can be sent to any address
        (Clause(ALLOW, (Test(0, (_AF_UNIX,)), Test(1, (_SOCK_STREAM,), mask=0xF))),),
    ),
    44: Rule(EPERM, (Clause(ALLOW, (Test(4, (0,)), Test(4, (0,), high=True))),)),  # sendto an address
    54: Rule(
        Errno(errno.ENOPROTOOPT),
        (
            Clause(EPERM, (Test(1, (_SOL_SOCKET,)), Test(2, (26, 44, 50, 51, 52)))),  # socket filters: BPF
            Clause(ALLOW, (Test(1, (_SOL_SOCKET,)),)),
        ),
    ),
    # other processes
    **_each((101, 310, 311, 312, 438), Notify("trace")),  # ptrace, process_vm_*, kcmp, pidfd_getfd
    **_each((274, 440, 448), EPERM),  # get_robust_list, process_madvise, process_mrelease
    # namespaces, mounts, roots; unshare, but for what is no namespace (clone has no CLONE_NEWTIME)
    272: Rule(Notify("namespaces"), (Clause(ALLOW, (Test(0, (0,), mask=_CLONE_NEW | 0x80),)),)),
    308: Rule(Notify("namespaces")),  # setns
    **_each((155, 161, 165, 166), Notify("namespaces")),  # pivot_root, chroot, mount, umount2
    **_each(range(428, 434), Notify("namespaces")),  # open_tree .. fspick
    **_each((442, 457, 458), Notify("namespaces")),  # mount_setattr, statmount, listmount
    # kernel surface
    **_each((298, 300, 301, 304, 321), Notify("kernel")),  # perf_event_open, fanotify, open_by_handle_at, bpf
    323: Rule(Notify("kernel", errno.ENOSYS)),  # userfaultfd
    **_each((248, 249, 250), Notify("kernel")),  # keyrings are shared by uid
    **_each((246, 320, 175, 313, 176, 174, 177, 178), Notify("kernel")),  # kexec, modules
    **_each((163, 167, 168, 169, 172, 173), Notify("kernel")),  # acct, swapon, swapoff, reboot, iopl, ioperm
    **_each((103, 153, 159, 164, 170, 171, 227, 305), EPERM),  # syslog, vhangup, clocks, host names
    **_each((179, 180, 443), EPERM),  # quotactl, nfsservctl, quotactl_fd
    **_each(
        (134, 136, 139, 154, 156, 212, 216, 278, 303), ENOSYS
    ),  # long dead, modify_ldt, vmsplice, name_to_handle_at
    **_each((425, 426, 427), ENOSYS),  # io_uring: libraries ask and fall back
    **_each((206, 207, 208, 209, 210, 333), ENOSYS),  # aio: a number of requests for the whole machine
    **_each((444, 445, 446, 447, 451, 459, 460, 461), ENOSYS),  # landlock, memfd_secret, cachestat, lsm_*
    **_each((317,), EPERM),  # seccomp
    135: Rule(EPERM, (Clause(ALLOW, (Test(0, (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)),)),)),  # personality
    # System V and POSIX message queues, semaphores, memory: by uid, and counted nowhere
    **_each((29, 30, 31, 64, 65, 66, 67, 68, 69, 70, 71, 220, 240, 241, 242, 243, 244, 245), ENOSYS),
    # inotify watches files that may not be read, and its numbers are few for a uid
    **_each((253, 254, 255, 294), ENOSYS),
    **_each((237, 238, 239, 256, 279, 450), EPERM),  # NUMA policies and moving pages
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What else holds a worker, which decides what the filter must do itself.

    `pids`: it has process ids of its own. `signals`: its signals cannot leave (Landlock scope). `truncate`: Landlock
    mediates truncate(2). `unix_sockets`: it may have them, as no foreign one is in reach. `notifier`: a leader answers.
    """

    pids: bool = False
    signals: bool = False
    truncate: bool = False
    unix_sockets: bool = False
    notifier: bool = True


def rules(around: Surroundings) -> dict[int, Rule]:
    """The verdict on every system call that is not simply allowed, by number."""
    table = dict(_FIXED)
    inside = around.pids or around.signals
    if not inside:
        table |= _each(SIGNALS, Notify())
        table[424] = Rule(EPERM)  # pidfd_send_signal
    if not around.truncate:
        table[76] = Rule(EPERM)
    table |= _targets(around)
    table |= _sockets(around)
    if not around.notifier:
        table = {number: _without_leader(number, rule) for number, rule in table.items()}
    return table


def refusals(table: dict[int, Rule]) -> dict[int, Notify]:
    """What the leader refuses when asked, by number."""
    return {number: rule.otherwise for number, rule in table.items() if isinstance(rule.otherwise, Notify)}


def _targets(around: Surroundings) -> dict[int, Rule]:
    """Priorities, affinities and limits: of the caller itself, and of others only where they are its own."""
    others: Verdict = ALLOW if around.pids else Notify()
    by_pid = Rule(others, (Clause(ALLOW, (Test(0, (0,)),)),))
    found = dict.fromkeys((142, 144, 203, 302, 314), by_pid)
    for number, process in ((141, 0), (251, 1)):  # setpriority, ioprio_set: by process, group or user
        group_too = (process, process + 1)
        found[number] = Rule(
            EPERM,
            (
                Clause(ALLOW, (Test(0, group_too), Test(1, (0,)))),
                Clause(others, (Test(0, (process,)),)),
            ),
        )
    return found


def _sockets(around: Surroundings) -> dict[int, Rule]:
    """socket() and what only makes sense after it. A program understands "network is unreachable"."""
    unreachable = errno.ENETUNREACH
    local, netlink = Test(0, (_AF_UNIX,)), Test(0, (16,))
    refused = Clause(Errno(errno.EACCES), (local,))
    quiet = Clause(Errno(errno.EAFNOSUPPORT), (netlink,))  # libc asks for interfaces on its own
    if not around.unix_sockets:
        return {
            41: Rule(Notify("network", unreachable), (refused, quiet)),
            **_each((42, 43, 49, 50, 288), EPERM),  # connect, accept, bind, listen, accept4
        }
    stream = Test(1, (_SOCK_STREAM,), mask=0xF)
    return {41: Rule(Notify("network", unreachable), (Clause(ALLOW, (local, stream)), refused, quiet))}


def _without_leader(number: int, rule: Rule) -> Rule:
    """The rule for a kernel without user notification: what would be asked is refused, only plain forks go ahead."""

    def fixed(verdict: Verdict, *, fork: bool = False) -> Verdict:
        if not isinstance(verdict, Notify):
            return verdict
        return ALLOW if fork else Errno(verdict.number)

    clauses = tuple(Clause(fixed(clause.verdict), clause.tests) for clause in rule.clauses)
    return Rule(fixed(rule.otherwise, fork=number in FORKS), clauses)
