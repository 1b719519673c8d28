"""What one session may use, and the part of it that the kernel enforces on each process by itself."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

from executor.settings import Settings

MIB: Final = 1024 * 1024
STACKS: Final = 1024 * MIB
"""Address space beyond the memory limit for a Python process: stacks of threads count as data before they are used."""
RESERVED: Final = 8 * STACKS
"""The same for anything else: V8 reserves half a gigabyte for the code of each isolate."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of a session: bytes, seconds of CPU of one process, and counts over all its processes."""

    memory: int
    folder_bytes: int
    folder_files: int
    cpu_seconds: int
    processes: int
    threads: int
    open_files: int

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        """The limits that the settings name."""
        return cls(
            memory=settings.session_memory_mb * MIB,
            folder_bytes=settings.session_disk_mb * MIB,
            folder_files=settings.session_files,
            cpu_seconds=settings.session_cpu_seconds,
            processes=settings.session_processes,
            threads=settings.session_threads,
            open_files=settings.session_open_files,
        )

    @property
    def shared_memory(self) -> int:
        """Bytes of the private /dev/shm."""
        return self.memory // 4

    @property
    def descriptors(self) -> int:
        """Open files over all processes: each may hold kernel memory that belongs to no process."""
        return 8 * self.open_files

    def rlimits(self, slack: int) -> dict[int, tuple[int, int]]:
        """(soft, hard) by RLIMIT_*, with `slack` bytes of address space beyond the memory.

        No RLIMIT_NPROC: it counts the user's processes in all containers of a machine.
        """

        def both(value: int) -> tuple[int, int]:
            return value, value

        wanted = {
            # a MemoryError is better than a kill, where one process asks for far too much at once
            resource.RLIMIT_DATA: both(self.memory + slack),
            resource.RLIMIT_FSIZE: both(self.folder_bytes),
            resource.RLIMIT_NOFILE: both(self.open_files),
            # SIGXCPU can be caught, so that a program may still save; SIGKILL follows
            resource.RLIMIT_CPU: (self.cpu_seconds, self.cpu_seconds + 5),
            resource.RLIMIT_CORE: both(0),
        }
        # Linux only; the last three are counted for the user, whom all sessions may share
        for name, value in (
            ("RLIMIT_RTPRIO", 0),
            ("RLIMIT_NICE", 0),
            ("RLIMIT_MSGQUEUE", 0),
            ("RLIMIT_MEMLOCK", MIB),
            ("RLIMIT_SIGPENDING", 1024),
        ):
            number = getattr(resource, name, None)
            if number is not None:
                wanted[number] = both(value)
        return wanted

    def apply(self, slack: int = RESERVED) -> None:
        """Put the limits on the calling process; where a hard limit is lower already, that one stays."""
        for number, wanted in self.rlimits(slack).items():
            _, ceiling = resource.getrlimit(number)
            soft, hard = wanted if ceiling == resource.RLIM_INFINITY else (min(value, ceiling) for value in wanted)
            resource.setrlimit(number, (soft, hard))
