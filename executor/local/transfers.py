"""Transfers: files that go in and out of a workspace, piece by piece, at the server's request."""

from __future__ import annotations

import os
from typing import Any

from executor.errors import BackendFailed, ExecutorError, FileRefused, InvalidRequest
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

    def carry_out(self, message: dict[str, Any]) -> dict[str, Any]:
        """The reply to a request. Raises ExecutorError or OSError."""
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
                return {}
            case "install":
                self._must_have_room()
                self._taking[message["request"]] = Installation(self._workspace, message["language"])
                return {}
            case "unpack":
                self._must_have_room()
                self._taking[message["request"]] = archive.Unpacking(self._workspace)
                return {}
            case "tree":
                self._must_have_room()
                self._giving[message["request"]] = archive.listing(self._workspace)
                return {}
            case "pack":
                self._must_have_room()
                self._giving[message["request"]] = archive.pack(self._workspace, message["paths"])
                return {}
            case "commit":
                if taking := self._taking.pop(message["handle"], None):
                    taking.finish()
                    return {}
                return {"file": file_json(self._workspace.finish_upload(self._upload(message["handle"])))}
            case "release":
                self._release(message["handle"])
                return {}
        raise BackendFailed(f"The session knows no request {message['op']!r}.")

    def read(self, message: dict[str, Any]) -> bytes:
        """The next piece of an open file, listing or parcel; empty at its end, or where it is no longer open."""
        if source := self._giving.get(message["handle"]):
            return source.next()
        fd = self._reading.get(message["handle"])
        return b"" if fd is None else os.pread(fd, min(message["size"], wire.CHUNK), message["offset"])

    def write(self, chunk: wire.Chunk) -> dict[str, Any]:
        """Append a piece to an upload or an installation, which ends where it cannot take it."""
        if taking := self._taking.get(chunk.channel):
            try:
                taking.write(chunk.data)
            except ExecutorError:
                del self._taking[chunk.channel]
                raise
            return {}
        upload = self._upload(chunk.channel)
        self._workspace.write(upload, chunk.data, limit=self._max_file)
        self._writing[chunk.channel] = upload
        return {}

    def _upload(self, handle: int) -> Upload:
        upload = self._writing.pop(handle, None)
        if upload is None:
            raise InvalidRequest("The upload has ended. Start it again.")
        return upload

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
