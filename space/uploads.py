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
        """Append `data`, which must begin where the former part ended; 0 begins anew. Returns the bytes so far."""
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
        elif offset != upload.received:
            raise UploadRefused(f"the next part must have offset {upload.received}, not {offset}.")
        if upload.received + len(data) > self._max_bytes:
            self._drop(key)
            raise UploadRefused(f"the file is over the limit of {self._max_bytes // 2**20} MiB; nothing was kept.")
        if sum(other.received for other in self._open.values()) + len(data) > _TOTAL_FILES * self._max_bytes:
            raise UploadRefused("too much is unfinished in all uploads together; try again in some minutes.")
        upload.busy = True
        try:
            await asyncio.to_thread(upload.file.write, data)
        except OSError as error:
            self._drop(key)
            raise UploadRefused(f"the part could not be stored ({error.strerror}); begin with offset 0.") from None
        finally:
            upload.busy = False
        upload.received += len(data)
        upload.touched = time.monotonic()
        return upload.received

    async def finish(self, key: Key) -> AsyncIterator[bytes]:
        """The whole file in order; the upload is over when this ends, whatever way."""
        upload = self._open.pop(key)
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
