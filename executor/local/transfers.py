"""Transfers: files that go in and out of a workspace, piece by piece, at the server's request.

What fits one piece costs one answer. What goes out comes with the answer to the request for it, which says whether
there are more pieces to be asked for. What comes in follows the request at once, piece by piece, up to an empty one,
and is answered once: at its end, or where no more can be taken; what still comes then is nobody's.
"""

from __future__ import annotations

import os
from typing import Any

from executor.errors import BackendFailed, FileRefused
from executor.local import archive, wire
from executor.local.installation import Installation
from executor.local.workspace import Upload, Workspace
from executor.results import FileInfo

MAX_OPEN = 64
"""Transfers of one session at the same time."""


class Transfers:
    """Carries out the file requests of one session. A transfer goes by the number of the request that began it."""

    def __init__(self, workspace: Workspace, *, max_file: int) -> None:
        self._workspace = workspace
        self._max_file = max_file
        self._reading: dict[int, int] = {}
        self._writing: dict[int, Upload] = {}
        self._taking: dict[int, Installation | archive.Unpacking] = {}
        self._giving: dict[int, archive.Source] = {}

    def carry_out(self, message: dict[str, Any]) -> dict[str, Any] | None:
        """The reply to a request; None where that is due when all has come. Raises ExecutorError or OSError."""
        match message["op"]:
            case "list":
                return {"files": [file_json(info) for info in self._workspace.list_files()]}
            case "info":
                return {"file": file_json(self._workspace.info(message["path"]))}
            case "delete":
                self._workspace.delete(message["path"])
                return {}
            case "move":
                return {"file": file_json(self._workspace.move_file(message["path"], message["target"]))}
            case "open":
                self._must_have_room()
                fd = self._workspace.open_file(message["path"])
                self._reading[message["request"]] = fd
                return {"size": os.fstat(fd).st_size}
            case "create":
                self._must_have_room()
                self._writing[message["request"]] = self._workspace.begin_upload(message["path"])
                return None
            case "install":
                self._must_have_room()
                self._taking[message["request"]] = Installation(self._workspace, message["language"])
                return None
            case "unpack":
                self._must_have_room()
                self._taking[message["request"]] = archive.Unpacking(self._workspace)
                return None
            case "release":
                self._release(message["handle"])
                return {}
        raise BackendFailed(f"The session knows no request {message['op']!r}.")

    def give(self, message: dict[str, Any]) -> tuple[bytes, bool]:
        """The first or next piece of a listing or parcel, or a piece of an open file, and whether it has more of them:
        one that has not is let go of. Empty where it is no longer open. Raises ExecutorError or OSError."""
        match message["op"]:
            case "tree":
                self._must_have_room()
                handle, source = message["request"], archive.listing(self._workspace)
            case "pack":
                self._must_have_room()
                handle, source = message["request"], archive.pack(self._workspace, message["paths"])
            case _:
                handle = message["handle"]
                if (fd := self._reading.get(handle)) is not None:
                    return os.pread(fd, min(message["size"], wire.CHUNK), message["offset"]), True
                if (found := self._giving.pop(handle, None)) is None:
                    return b"", False
                source = found
        piece, more = source.next()
        if more:
            self._giving[handle] = source
        return piece, more

    def write(self, chunk: wire.Chunk) -> dict[str, Any] | None:
        """Append a piece to what is coming in, or put it in place where the piece is empty: the reply, then. Whatever
        fails ends it. Raises ExecutorError or OSError."""
        number = chunk.channel
        if (upload := self._writing.pop(number, None)) is not None:
            if not chunk.data:
                return {"file": file_json(self._workspace.finish_upload(upload))}
            self._workspace.write(upload, chunk.data, limit=self._max_file)
            self._writing[number] = upload
        elif (taking := self._taking.pop(number, None)) is not None:
            if not chunk.data:
                taking.finish()
                return {}
            taking.write(chunk.data)
            self._taking[number] = taking
        return None

    def _release(self, handle: int) -> None:
        if (fd := self._reading.pop(handle, None)) is not None:
            os.close(fd)
        if upload := self._writing.pop(handle, None):
            self._workspace.abort_upload(upload)
        if taking := self._taking.pop(handle, None):
            taking.abort()
        if source := self._giving.pop(handle, None):
            source.close()

    def _must_have_room(self) -> None:
        if len(self._reading) + len(self._writing) + len(self._taking) + len(self._giving) >= MAX_OPEN:
            raise FileRefused(f"{MAX_OPEN} files of this session are being transferred. Wait for one to end.")


def file_json(info: FileInfo) -> dict[str, Any]:
    """A FileInfo as a message carries it."""
    return {"path": info.path, "size": info.size, "modified": info.modified, "change": info.change}
