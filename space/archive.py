"""A session's whole folder as a zip, with what ran if wanted: made while it is sent, and never held as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
import zipfile
from collections.abc import AsyncGenerator, Container, Sequence
from datetime import UTC, datetime

from executor import Executor
from executor.errors import FileRefused, NoSuchFile
from executor.results import FileInfo
from space import notebook
from space.links import Grant

LEFT_OUT = "not-in-this-zip.txt"
"""Tells of files that could not be read; only there if there are some."""
_LEVEL = 1  # most of what is large is compressed already, and two cores are for the guests
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # of the format


class _Sink:
    """Where `zipfile` writes: collects the bytes until they are taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        # a copy: zipfile may hand over a view of what it goes on using
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """As `zipfile` expects of a file."""

    def close(self) -> None:
        """As `zipfile` expects of a file."""

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


async def zipped(
    executor: Executor, grant: Grant, files: Sequence[FileInfo], *, with_notebook: bool = False
) -> AsyncGenerator[bytes, None]:
    """The bytes of a zip with these files of the session, each at most as long as it was when it was listed.

    `with_notebook` puts what ran in front, under a name that no file has.
    """
    sink = _Sink()
    left_out: list[str] = []
    archive = zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL)
    if with_notebook:
        name = free_name(notebook.NAME, {file.path for file in files})
        async with contextlib.aclosing(notebook.notebook(executor, grant, files)) as parts:
            with archive.open(_entry(FileInfo(name, 0, time.time())), "w", force_zip64=True) as member:
                async for part in parts:
                    await asyncio.to_thread(member.write, part)
                    yield sink.take()
    for file in files:
        reading = executor.get_file(
            grant.session_id, file.path, length=file.size, owner=grant.owner, conversation=grant.conversation
        )
        async with contextlib.aclosing(reading) as chunks:
            try:
                # a file that cannot be read must be known before its name is in the zip
                first = await anext(chunks, b"")
            except (NoSuchFile, FileRefused) as error:
                left_out.append(f"{file.path}: {error}")
                continue
            with archive.open(_entry(file), "w", force_zip64=True) as member:
                await asyncio.to_thread(member.write, first)
                async for chunk in chunks:
                    yield sink.take()
                    await asyncio.to_thread(member.write, chunk)
        yield sink.take()
    if left_out:
        archive.writestr(LEFT_OUT, "\n".join(left_out) + "\n")
    archive.close()
    yield sink.take()


def free_name(wanted: str, taken: Container[str]) -> str:
    """`wanted`, or where that is taken `wanted (2)`, `wanted (3)` and so on, before its ending."""
    stem, dot, ending = wanted.rpartition(".")
    names = (f"{stem} ({number}){dot}{ending}" for number in itertools.count(2))
    return wanted if wanted not in taken else next(name for name in names if name not in taken)


def _entry(file: FileInfo) -> zipfile.ZipInfo:
    try:
        modified = datetime.fromtimestamp(file.modified, UTC).timetuple()[:6]
    except (OverflowError, ValueError, OSError):
        modified = _EARLIEST  # the guest sets the times of its files
    entry = zipfile.ZipInfo(file.path, max(_EARLIEST, min(modified, (2107, 12, 31, 23, 59, 58))))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry
