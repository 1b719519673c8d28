"""Files that come in several calls: parts gather in an unnamed temporary file until the last one is there."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import IO

_EXPIRY_SECONDS = 900.0
_MAX_OPEN = 32
_MAX_OPEN_PER_SESSION = 4
_TOTAL_FILES = 4  # all unfinished uploads together may hold this many files of the largest size
_READ_BYTES = 1 << 20

Key = tuple[str, str, str]
"""Owner, session and path."""


class UploadRefused(ValueError):
    """A part that cannot be taken; the sentence says what to send instead."""


@dataclass(eq=False, slots=True)
class _Upload:
    file: IO[bytes]
    received: int = 0
    begun: int = 0
    """Where the last part began: it may come again from there."""
    touched: float = field(default_factory=time.monotonic)
    busy: bool = False


class Uploads:
    """Unfinished uploads, by owner, session and path; idle ones end after 15 minutes. For one event loop.

    The file is unlinked from the start: nothing is left behind by a crash, and no session can reach it by a name.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._open: dict[Key, _Upload] = {}

    async def add(self, key: Key, offset: int, data: bytes) -> int:
        """Take the part that begins at `offset`. Returns the bytes so far. Raises UploadRefused.

        It must begin where the last one ended, or where that began: a part whose answer was an error, or never came, is
        sent again, and then stands in place of the former, however long either is. 0 begins anew.
        """
        self._expire()
        upload = self._open.get(key)
        if upload is not None and upload.busy:
            raise UploadRefused("another part of this file is being written; send the parts one after the other.")
        if offset == 0:
            self._drop(key)
            upload = self._begin(key)
        elif upload is None:
            raise UploadRefused(
                f"no upload of this file is open, so offset {offset} has no place; begin with offset 0."
            )
        elif offset not in (upload.received, upload.begun):
            raise UploadRefused(
                f"the next part must have offset {upload.received}, not {offset}; to send the last part again, "
                f"offset {upload.begun}."
            )
        if offset + len(data) > self._max_bytes:
            self._drop(key)
            raise UploadRefused(f"the file is over the limit of {self._max_bytes // 2**20} MiB; nothing was kept.")
        others = sum(other.received for other in self._open.values() if other is not upload)
        if others + offset + len(data) > _TOTAL_FILES * self._max_bytes:
            raise UploadRefused("too much is unfinished in all uploads together; try again in some minutes.")
        # what is behind the offset is void from now on, also if this call is cancelled
        upload.begun = upload.received = offset
        upload.busy = True
        writing = asyncio.get_running_loop().run_in_executor(None, _write, upload.file, offset, data)
        # a thread cannot be cancelled: the file is its own until it ends, whether or not its call still waits
        writing.add_done_callback(lambda _: _written(upload))
        try:
            await asyncio.shield(writing)
        except OSError as error:
            self._drop(key)
            raise UploadRefused(f"the part could not be stored ({error.strerror}); begin with offset 0.") from None
        upload.received = offset + len(data)
        return upload.received

    def finish(self, key: Key) -> AsyncIterator[bytes]:
        """The whole file in order, as it is now; the upload is over when this ends, whatever way. Raises UploadRefused
        where another part has come before the first byte was asked for: the file goes on with that one."""
        upload = self._open[key]
        return self._finish(key, upload, upload.received)

    async def _finish(self, key: Key, upload: _Upload, size: int) -> AsyncIterator[bytes]:
        if self._open.get(key) is not upload or upload.busy or upload.received != size:
            raise UploadRefused("another part of this file came meanwhile; go on with what its answer says.")
        del self._open[key]
        try:
            await asyncio.to_thread(upload.file.seek, 0)
            while chunk := await asyncio.to_thread(upload.file.read, _READ_BYTES):
                yield chunk
        finally:
            upload.file.close()

    def close(self) -> None:
        """Drop everything that is unfinished."""
        for key in tuple(self._open):
            self._drop(key)

    def _begin(self, key: Key) -> _Upload:
        own = sum(1 for other in self._open if other[:2] == key[:2])
        if len(self._open) >= _MAX_OPEN or own >= _MAX_OPEN_PER_SESSION:
            raise UploadRefused("too many uploads are unfinished; finish one with final true, or try again later.")
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the upload
        upload = self._open[key] = _Upload(file)
        return upload

    def _expire(self) -> None:
        before = time.monotonic() - _EXPIRY_SECONDS
        for key in [key for key, upload in self._open.items() if upload.touched < before and not upload.busy]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        if (upload := self._open.pop(key, None)) is not None:
            upload.file.close()


def _write(file: IO[bytes], offset: int, data: bytes) -> None:
    """Let the file end with `data` from `offset` on. Raises OSError."""
    file.seek(offset)
    file.truncate()
    file.write(data)
    file.flush()


def _written(upload: _Upload) -> None:
    upload.busy = False
    upload.touched = time.monotonic()
