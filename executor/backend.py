"""Backend: the seam between sessions and whatever runs them.

Service, keeper, parking, runner, snapshots and installer call it, nobody else. Every call carries plain data, so a
backend may sit on another machine; every call ends by a deadline of its own, with an ExecutorError where that passes.
Executions outlive the request that started them: `start` returns as soon as the code is handed over, `attach` may be
called any number of times, by anyone.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from executor.events import Event
from executor.packages.report import Ecosystem
from executor.results import ExecutionResult, FileInfo, Language, LanguageState, Output
from executor.sandbox.report import SandboxReport


@dataclass(frozen=True, slots=True)
class SessionSpec:
    """What a backend must know to make a session."""

    id: str


@dataclass(frozen=True, slots=True)
class SessionRef:
    """Names one life of a session: from when a backend made it until it was closed; plain data."""

    id: str
    life: int = 0


@dataclass(frozen=True, slots=True)
class OutputChunk:
    """Text that a running cell printed, as it came; stops at the cap, `Finished` has head and tail."""

    stream: Literal["stdout", "stderr"]
    text: str


@dataclass(frozen=True, slots=True)
class Displayed:
    """A value that a running cell displayed."""

    output: Output


@dataclass(frozen=True, slots=True)
class Finished:
    """The execution ended; the last event of every `attach`. `limits` names the limits it hit, `replaced` says why
    its worker had to be replaced, None where it lives on."""

    result: ExecutionResult
    limits: tuple[str, ...] = ()
    replaced: str | None = None


@dataclass(frozen=True, slots=True)
class Printed:
    """What a running cell has printed up to now: each stream within `MAX_OUTPUT_LENGTH`, head and tail, as its result
    will have it."""

    stdout: str
    stderr: str


Print = tuple[str, int, int, int, int, int]
"""What tells whether something in a folder has changed: kind, permission bits, size in bytes, modification and change
time in ns, inode. A guest can set the first of the times, not the second."""

Tree = dict[str, Print]
"""The whole folder of a session, hidden names included, by path: regular files, folders and symbolic links."""

ExecutionEvent = OutputChunk | Displayed | Finished


@dataclass(frozen=True, slots=True)
class SessionStats:
    """What a session uses now: bytes of memory (PSS where readable, else resident), of its folder, and counts."""

    memory: int
    processes: int
    threads: int
    folder_bytes: int
    folder_files: int


@dataclass(frozen=True, slots=True)
class Activity:
    """What goes on in a session between its cells. `background` are the processes that its code has started and that
    still run. It `rests` where nothing has acted since it was saved last, nor can before the next cell: none of these,
    and no interpreter with threads or an event loop of its own."""

    background: int
    rests: bool


class Backend(Protocol):
    """Runs sessions. Not thread-safe: all calls come from one event loop."""

    @property
    def scratch(self) -> Path:
        """A folder of this server's own, out of every session's sight, gone with the backend."""

    async def open(self, publish: Callable[[Event], None], make_room: Callable[[], Awaitable[bool]]) -> SandboxReport:
        """Start, and say how well code is held here. Called once, before all else.

        Later faults go to `publish`. Where memory is short, `make_room` parks an idle session; False: none is left.
        """

    async def aclose(self) -> None:
        """End every session and process. Idempotent."""

    async def create(self, spec: SessionSpec) -> SessionRef:
        """Make a session with an empty folder and a Python worker that is ready or about to be."""

    async def save(self, ref: SessionRef, *, limit: int, begun: Callable[[], None], final: bool) -> list[LanguageState]:
        """Have every interpreter whose state may have changed write it into hidden files of the session's folder.

        `limit` is the size of each file in bytes at most. A Python state is loaded once by way of trial before it takes
        the place of the former one. Languages that did not run since the last time are not saved again, unless this is
        the `final` time and they may have acted by themselves (see `Activity`); the answer has all that were saved.
        Raises Busy while code runs; code that comes after `begun` was called waits for no more than a fork.
        """

    async def tree(self, ref: SessionRef) -> Tree:
        """What is in the session's folder."""

    def pack(self, ref: SessionRef, paths: Sequence[str]) -> AsyncIterator[bytes]:
        """Those of `paths` that are still there, as a parcel, in that order."""

    async def unpack(self, ref: SessionRef, parcel: AsyncIterable[bytes]) -> None:
        """Put what is in `parcel` into the session's folder. Raises FileRefused where it does not fit."""

    async def restore(
        self, ref: SessionRef, languages: Sequence[Language], numbers: Mapping[Language, int]
    ) -> list[LanguageState]:
        """Have fresh interpreters take over what `save` once wrote into the folder: those of `languages`.

        Cells are counted on from `numbers`.
        """

    def close(self, ref: SessionRef, *, linger: float = 0.0) -> Coroutine[Any, Any, None]:
        """End the session with all its processes and delete its folder. Idempotent.

        The call itself takes the session away, so that another life of it can be made; what is to be awaited, or owned,
        ends the processes, after `linger` seconds.
        """

    def alive(self, ref: SessionRef) -> bool:
        """Whether the session can still take calls."""

    async def stats(self, ref: SessionRef) -> SessionStats:
        """What the session uses now."""

    async def activity(self, ref: SessionRef) -> Activity:
        """What goes on in it though no cell runs; cheaper than `stats`."""

    async def start(self, ref: SessionRef, language: Language, code: str, execution_id: str, timeout: float) -> None:
        """Hand `code` over. One execution a session at a time: the caller waits for the former one's `Finished`.

        `timeout` in seconds counts from here. Raises BackendFailed where the session is gone.
        """

    def attach(self, ref: SessionRef, execution_id: str) -> AsyncIterator[ExecutionEvent]:
        """The execution's events from its first one on, also when it ended before, up to `Finished`.

        Always ends with `Finished`: if the session dies under it, with status `lost`. Raises NoSuchExecution for an
        id that is unknown or no longer remembered.
        """

    async def printed(self, ref: SessionRef, execution_id: str) -> Printed:
        """What the execution has printed up to now; nothing where it is not the one under way."""

    async def interrupt(self, ref: SessionRef, execution_id: str) -> None:
        """Stop the execution: softly, so that variables stay, and hard after the grace. Idempotent."""

    async def put_file(self, ref: SessionRef, path: str, chunks: AsyncIterable[bytes]) -> FileInfo:
        """Write a file, made or replaced as a whole when the last chunk is there; a failed put leaves no trace.

        Raises FileRefused for a path that leaves the folder or passes a link, or when the folder is full.
        """

    def get_file(
        self, ref: SessionRef, path: str, *, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes of a regular file from `offset` on. Raises NoSuchFile or FileRefused before the first chunk."""

    async def file_info(self, ref: SessionRef, path: str) -> FileInfo:
        """Size and time of one regular file, hidden ones included. Raises NoSuchFile or FileRefused."""

    async def list_files(self, ref: SessionRef) -> list[FileInfo]:
        """The regular files of the folder, hidden ones left out, sorted by path; at most `SESSION_FILES`."""

    async def move_file(self, ref: SessionRef, path: str, target: str) -> FileInfo:
        """Rename a file within the folder. Raises NoSuchFile, or FileRefused where `target` exists."""

    async def delete_file(self, ref: SessionRef, path: str) -> None:
        """Delete a file, or a folder with all it holds. Raises NoSuchFile."""

    async def install(self, ref: SessionRef, language: Ecosystem, parcel: AsyncIterable[bytes]) -> None:
        """Exchange the session's packages of a language for those in `parcel` (see `executor.parcel`), as a
        whole when its last piece is there; a failed exchange leaves no trace. Raises FileRefused where they do not fit.
        """
