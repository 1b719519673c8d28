"""Client: pip or npm as a subprocess, held to a deadline and a size, and its words turned into sentences of ours.

What a client prints may name the operator's private hosts, paths and keys, so none of it is passed on: only names,
versions and sizes that were read out of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import resource
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from executor.packages.report import Ecosystem, Package
from executor.packages.requests import Wanted
from executor.parcel import measure

Progress = Callable[[str], None]
"""Takes a sentence about what is going on."""

LOOK_EVERY = 0.3
"""Seconds between two looks at what was downloaded."""

MAX_LINES = 2_000
MAX_LINE = 2_000

MB = 1_000_000


class FetchFailed(Exception):
    """Nothing was fetched; the text says why. `culprits` are the names of the requests to blame, empty: all of them.
    `detail` is for the operator only."""

    def __init__(self, reason: str, *, culprits: Sequence[str] = (), detail: str = "") -> None:
        super().__init__(reason)
        self.culprits = frozenset(culprits)
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One fetch: where it may write (`stage`, empty at first), and what it may take. `deadline` is a time of the event
    loop's clock, `seconds` the whole that it was given."""

    stage: Path
    downloads: Path
    deadline: float
    seconds: float
    max_mb: int
    progress: Progress

    @property
    def tree(self) -> Path:
        """The folder that goes to the session."""
        return self.stage / "tree"

    def too_large(self, culprit: str = "", version: str = "", megabytes: float = 0) -> FetchFailed:
        """The error for what is over the limit."""
        what = "with all that comes along it is too large"
        if culprit:
            what = f"{culprit} {version} alone has {megabytes:,.0f} MB"
        limit = f"at most {self.max_mb} MB of packages may be installed in a session"
        return FetchFailed(f"{what}; {limit}", culprits=[culprit] if culprit else ())


class Client(Protocol):
    """A package client."""

    language: Ecosystem

    def ready(self, wanted: Wanted) -> Package | None:
        """The package where sessions have it already, of their own accord. Raises Unusable where they have another
        version of it, which cannot be exchanged."""

    def own(self, name: str) -> str | None:
        """The version of a package that sessions have of their own accord."""

    async def fetch(self, wanted: Sequence[Wanted], job: Job) -> list[Package]:
        """Fill `job.tree` with the packages and what they need. Raises FetchFailed."""


@dataclass(slots=True)
class Said:
    """How a subprocess ended, and what it printed."""

    code: int
    lines: list[str] = field(default_factory=list)

    def find(self, pattern: str) -> re.Match[str] | None:
        """The first match in a line."""
        return next((match for line in self.lines if (match := re.search(pattern, line))), None)

    def all(self, pattern: str) -> list[re.Match[str]]:
        """The first match of each line that has one."""
        return [match for line in self.lines if (match := re.search(pattern, line))]

    def unknown(self, client: str) -> FetchFailed:
        """The error where nothing that it printed is understood."""
        tail = " | ".join(self.lines[-8:])
        return FetchFailed(
            f"{client} failed for a reason that only the server's log tells; try it again, or another version",
            detail=f"{client} ended with {self.code}: {redacted(tail)}"[:2_000],
        )


async def run(
    argv: Sequence[str], *, env: Mapping[str, str], job: Job, on_line: Callable[[str], None] = lambda _: None
) -> Said:
    """Run a client to its end. Raises FetchFailed where time or size run out, and what `on_line` raises.

    However this ends, the client's whole process group has ended, too.
    """
    if job.deadline <= asyncio.get_running_loop().time():
        raise _late(job)
    process = await asyncio.create_subprocess_exec(
        *argv,
        env=dict(env),
        cwd=job.stage,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )
    said = Said(0)
    assert process.stdout is not None
    reading = asyncio.create_task(_read(process.stdout, said, on_line))
    watching = asyncio.create_task(_watch(job))
    try:
        with contextlib.suppress(OSError):
            # no single file may grow past the limit, however fast it comes
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (job.max_mb * MB, job.max_mb * MB))
        async with asyncio.timeout_at(job.deadline):
            done, _ = await asyncio.wait({reading, watching}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            said.code = await process.wait()
    except TimeoutError:
        raise _late(job) from None
    finally:
        watching.cancel()
        reading.cancel()
        await _end(process)
        await asyncio.gather(reading, watching, return_exceptions=True)
    if said.code != 0 and said.find(r"File too large|EFBIG|SIGXFSZ|Errno 27"):
        raise job.too_large()
    if said.code != 0 and said.find(r"No space left on device|ENOSPC"):
        raise FetchFailed("the server's disk is full; tell its operator", detail="no space left for packages")
    return said


def environment(job: Job, known: Callable[[str], bool]) -> dict[str, str]:
    """The environment of a client: what it needs to reach the index as the operator set it up, and no secret of ours.

    `known` tells the client's own variables. This is the one place besides Settings that reads the environment, as
    these variables are the clients' and not ours.
    """
    temporary = job.stage / "tmp"
    temporary.mkdir(exist_ok=True)
    passed = {key: value for key, value in os.environ.items() if key.lower() in _COMMON or known(key)}
    return {**passed, "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "TMPDIR": str(temporary)}


_COMMON = frozenset(
    {"home", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir"}
    | {"xdg_config_home", "xdg_config_dirs", "requests_ca_bundle", "curl_ca_bundle", "node_extra_ca_certs", "netrc"}
)


def redacted(text: str) -> str:
    """A client's words for the operator's log: without addresses, which may hold keys."""
    return re.sub(r"(?i)\b[a-z][a-z0-9+.-]*://\S+|(host=)\S+", r"\1<address>", text)


def _late(job: Job) -> FetchFailed:
    return FetchFailed(f"it was not fetched within {job.seconds:g} s, the time limit; try fewer or smaller packages")


async def _read(stream: asyncio.StreamReader, said: Said, on_line: Callable[[str], None]) -> None:
    def hear(raw: bytes) -> None:
        line = raw[:MAX_LINE].decode("utf-8", "replace").rstrip()
        said.lines.append(line)
        del said.lines[:-MAX_LINES]
        on_line(line)

    rest = b""
    while data := await stream.read(1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[-MAX_LINE:]
        for raw in lines:
            hear(raw)
    if rest:
        hear(rest)


async def _watch(job: Job) -> None:
    """Ends only where too much is there: the download and what is unpacked of it lie side by side for a while."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
        size, _ = await asyncio.to_thread(measure, job.stage)
        if size > 2 * job.max_mb * MB:
            raise job.too_large()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    # killed or ended: it takes no time; shielded, so that a second cancel leaves no zombie
    await asyncio.shield(process.wait())
