"""Stream: one output stream of one cell, kept within its cap: head and tail stay, the rest goes into a log file."""

from __future__ import annotations

import codecs
import os
from contextlib import suppress

from executor.errors import ExecutorError
from executor.local.workspace import Workspace


class Stream:
    """Takes the bytes that a cell prints on one stream.

    `cap` is in characters, for head, cut line and tail together. Once the stream is longer, everything from its first
    byte on also goes into the file `log` of the workspace, up to `max_log` bytes.
    """

    def __init__(self, name: str, workspace: Workspace, *, cap: int, log: str, max_log: int) -> None:
        self.name = name
        self._workspace = workspace
        self._head_chars = cap // 2
        self._cap = cap
        self._log, self._max_log = log, max_log
        self._log_fd: int | None = None
        self._logged = 0
        self._log_failed = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._start = bytearray()
        self._tail = bytearray()
        self.total = 0
        self.truncated = False

    def feed(self, data: bytes) -> str:
        """Take bytes; returns the text of them that a reader may see at once, nothing once the cap is passed."""
        self.total += len(data)
        if self.truncated:
            self._append_log(data)
            self._keep_tail(data)
            return ""
        self._start += data
        text = self._decoder.decode(data)
        self._text += text
        if len(self._text) <= self._cap:
            return text
        self.truncated = True
        self._open_log()
        self._append_log(self._start)
        self._keep_tail(bytes(self._start))
        self._start.clear()
        shown = len(self._text) - len(text)
        self._text = self._text[: self._head_chars]
        return self._text[shown:]

    def finish(self) -> str:
        """The text of the whole stream within the cap, with a line in the middle that says what was cut."""
        if self._log_fd is not None:
            os.close(self._log_fd)
            self._log_fd = None
        return self.so_far() + ("" if self.truncated else self._decoder.decode(b"", final=True))

    def so_far(self) -> str:
        """The same for what came up to now."""
        if not self.truncated:
            return self._text
        where = self._log_failed or (
            f"all of it is in {self._log}"
            if self._logged >= self.total
            else f"the first {self._logged:,} bytes are in {self._log}"
            if self._logged
            else "no log of it is kept"
        )
        line = f"\n... cut: {self.name} had {self.total:,} bytes; {where} ...\n"
        room = max(0, self._cap - self._head_chars - len(line))
        tail = self._tail.decode("utf-8", "replace")[-room:] if room else ""
        return self._text + line + tail

    def latest(self) -> bytes:
        """The last bytes of the stream, at least a few thousand where there are so many."""
        return bytes(self._tail if self.truncated else self._start)

    def _keep_tail(self, data: bytes) -> None:
        # four bytes a character at most
        keep = 4 * self._cap
        if len(data) >= keep:
            self._tail[:] = data[-keep:]
        else:
            self._tail += data
            if len(self._tail) > 2 * keep:
                del self._tail[:-keep]

    def _open_log(self) -> None:
        if not self._max_log:
            return
        try:
            self._log_fd = self._workspace.create(self._log)
        except ExecutorError as error:
            self._log_failed = f"no log of it could be kept ({error})"

    def _append_log(self, data: bytes | bytearray) -> None:
        if self._log_fd is None or self._logged >= self._max_log:
            return
        with suppress(OSError), memoryview(data) as view:
            self._logged += os.write(self._log_fd, view[: self._max_log - self._logged])
