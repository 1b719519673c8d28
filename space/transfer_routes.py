"""`/files/{token}` and `/upload/{token}`: files in and out of a session over plain HTTP, by signed links."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import math
import mimetypes
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any
from urllib.parse import quote

from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Send

from executor import Executor, Settings
from executor.errors import (
    BackendFailed,
    Busy,
    ExecutorError,
    FileRefused,
    InvalidRequest,
    NoSuchFile,
    NoSuchSession,
    QuotaExceeded,
)
from executor.events import AccessRefused, Bus
from executor.results import FileInfo
from space import notebook
from space.archive import zipped
from space.content import clean
from space.links import FILES_PATH, UPLOAD_PATH, Grant, Kind, Link, LinkRefused, Links

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    # a file of a guest is never a page of ours: no script, no form, no frame, an origin of its own
    "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:",
    "Cache-Control": "private, no-store",
    "Referrer-Policy": "no-referrer",
    "X-Robots-Tag": "noindex",
}
"""On everything that these routes send."""

_SHOWN_TYPES = re.compile(r"image/|audio/|video/|text/(plain|csv)$|application/(pdf|json|zip)$")
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_STALLED = 60.0
"""Seconds without a byte after which a transfer is given up."""
_PATIENCE = 60.0
_SLOWEST = 16 * 2**10
"""Bytes a second that a transfer must have after the first `_PATIENCE` seconds: its session holds a place meanwhile."""
_DRAINED = 64 * 2**20
_DRAIN_SECONDS = 30.0
_MAX_NAME = 200


class _Anything(PathConvertor):
    """A path with whatever is in it: Starlette's own stops at a line feed, and then there is no sentence for it."""

    regex = r"[\s\S]*"


register_url_convertor("anything", _Anything())


class TransferRefused(Exception):
    """A request that is answered with `status` and a sentence."""

    def __init__(self, status: int, sentence: str, **headers: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


class _Clock:
    """How long one transfer has waited for its client, who may be slow but must come to an end.

    Only that counts: what we take ourselves, for reading, storing or waiting for a place, is not the client's doing.
    """

    def __init__(self) -> None:
        self.waited = 0.0

    @contextlib.asynccontextmanager
    async def wait(self, moved: int) -> AsyncIterator[None]:
        """Wait for the client inside; `moved` bytes have come or gone so far. Raises TimeoutError, see `sentence`."""
        began = time.monotonic()
        left = _PATIENCE + moved / _SLOWEST - self.waited
        try:
            async with asyncio.timeout(max(0.0, min(_STALLED, left))):
                yield
        finally:
            self.waited += time.monotonic() - began

    def sentence(self, moved: int) -> str:
        """What was wrong, once `wait` was in vain."""
        if self.waited < _PATIENCE + moved / _SLOWEST:
            return f"Nothing came for {_STALLED:g} s"
        return (
            f"Only {moved:,} bytes came in {self.waited:.0f} s; after {_PATIENCE:g} s it must be at least "
            f"{_SLOWEST:,} bytes a second"
        )


class Transfers:
    """Serves the two paths for one executor."""

    def __init__(self, executor: Executor, links: Links, settings: Settings, bus: Bus) -> None:
        self._executor = executor
        self._links = links
        self._bus = bus
        self._max_bytes = settings.max_upload_mb * 2**20
        self._max_zip = max(settings.max_upload_mb, settings.session_disk_mb) * 2**20

    def routes(self) -> list[BaseRoute]:
        """The routes; the path of a file to write may follow the token, as `curl -T` adds it."""
        return [
            Route(f"{FILES_PATH}{{token}}", self._download, methods=["GET", "HEAD"]),
            Route(f"{UPLOAD_PATH}{{token}}", self._upload, methods=["PUT", "POST"]),
            Route(f"{UPLOAD_PATH}{{token}}/{{name:anything}}", self._upload, methods=["PUT", "POST"]),
        ]

    # Out

    async def _download(self, request: Request) -> Response:
        try:
            link = self._opened(request, "file", "zip", "notebook", "export")
            match link.kind:
                case "file":
                    return await self._file(request, link)
                case "notebook":
                    return await self._notebook(request, link.grant)
                case kind:
                    return await self._zip(request, link.grant, with_notebook=kind == "export")
        except (TransferRefused, ExecutorError) as error:
            return _refused(error)

    async def _file(self, request: Request, link: Link) -> Response:
        grant = link.grant
        info = await self._executor.file_info(
            grant.session_id, link.path, owner=grant.owner, conversation=grant.conversation
        )
        if info.size > self._max_bytes:
            raise TransferRefused(413, f"The file has {info.size:,} bytes; at most {self._max_bytes:,} are given out.")
        state = repr((info.path, info.size, info.modified)).encode()
        etag = f'"{hashlib.sha256(state).hexdigest()[:24]}"'
        name = info.path.rsplit("/", 1)[-1]
        headers = {**HEADERS, "Content-Disposition": disposition(name), "Accept-Ranges": "bytes", "ETag": etag}
        wanted = byte_range(request.headers.get("range", ""), info.size)
        if request.headers.get("if-range", etag) != etag:
            wanted = None
        start, end = (0, info.size) if wanted is None else wanted
        if wanted is not None and start >= end:
            headers["Content-Range"] = f"bytes */{info.size}"
            raise TransferRefused(416, f"The file has {info.size:,} bytes; the range is not in it.", **headers)
        if wanted is not None:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{info.size}"
        headers["Content-Length"] = str(end - start)
        status = 200 if wanted is None else 206
        if request.method == "HEAD" or start == end:
            return Response(status_code=status, headers=headers, media_type=media_type(name))
        chunks = self._executor.get_file(
            grant.session_id,
            link.path,
            owner=grant.owner,
            conversation=grant.conversation,
            offset=start,
            length=end - start,
        )
        # what is wrong with the file shows with its first bytes, while there can still be a status
        first = await anext(chunks, b"")
        return _Answer(_joined(first, chunks), end - start, status, headers, media_type(name))

    async def _notebook(self, request: Request, grant: Grant) -> Response:
        files = await self._executor.list_files(grant.session_id, owner=grant.owner, conversation=grant.conversation)
        headers = {**HEADERS, "Content-Disposition": disposition(notebook.NAME)}
        if request.method == "HEAD":
            return Response(headers=headers, media_type=notebook.MIME)
        return _Answer(notebook.notebook(self._executor, grant, files), None, 200, headers, notebook.MIME)

    async def _zip(self, request: Request, grant: Grant, *, with_notebook: bool) -> Response:
        files = await self._executor.list_files(grant.session_id, owner=grant.owner, conversation=grant.conversation)
        if (size := sum(file.size for file in files)) > self._max_zip:
            raise TransferRefused(
                413, f"The files have {size:,} bytes together; over {self._max_zip:,} download them one by one."
            )
        headers = {**HEADERS, "Content-Disposition": disposition("session.zip")}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="application/zip")
        chunks = zipped(self._executor, grant, files, with_notebook=with_notebook)
        return _Answer(chunks, None, 200, headers, "application/zip")

    # In

    async def _upload(self, request: Request) -> Response:
        body = _Body(request, self._max_bytes)
        try:
            link = self._opened(request, "upload", "folder")
            name = request.path_params.get("name") or request.query_params.get("name", "")
            if link.kind == "upload":
                if name not in ("", link.path):
                    raise TransferRefused(403, f"This link writes {link.path!r} and nothing else.")
                name = link.path
            if not name:
                raise TransferRefused(400, "Say what the file shall be called: add ?name=data.csv to the address.")
            former = request.query_params.get("from")
            if former is not None:
                return await self._rename(link, former, name)
            return await self._write(request, body, link.grant, name)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except (TransferRefused, ExecutorError) as error:
            await body.drain()
            return _refused(error)

    async def _write(self, request: Request, body: _Body, grant: Grant, name: str) -> Response:
        if request.headers.get("content-type", "").startswith("multipart/"):
            raise TransferRefused(415, "Send the file's bytes as they are, not as a form: curl -T data.csv ADDRESS/")
        announced = request.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > self._max_bytes:
            raise TransferRefused(413, body.too_large())
        info = await self._executor.put_file(
            grant.session_id, name, body.chunks(), owner=grant.owner, conversation=grant.conversation
        )
        return _said(201, info)

    async def _rename(self, link: Link, former: str, name: str) -> Response:
        if link.kind != "folder":
            raise TransferRefused(403, f"This link writes {link.path!r} and renames nothing.")
        grant = link.grant
        info = await self._executor.move_file(
            grant.session_id, former, name, owner=grant.owner, conversation=grant.conversation
        )
        return _said(200, info)

    # Both

    def _opened(self, request: Request, *kinds: Kind) -> Link:
        try:
            return self._links.open(request.path_params["token"], *kinds)
        except LinkRefused as error:
            if error.early:
                raise TransferRefused(503, str(error), **{"Retry-After": "5"}) from None
            # the token is not for the log: a part of it may be good
            self._bus.publish(AccessRefused(reason="token", path=f"/{request.url.path.split('/')[1]}/"))
            raise TransferRefused(410 if error.gone else 403, str(error)) from None


class _Body:
    """The body of a request, of at most `limit` bytes, as it comes in."""

    def __init__(self, request: Request, limit: int) -> None:
        self._receive = request.receive
        self._limit = limit
        self._received = 0
        self._ended = False
        self._clock = _Clock()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Its bytes. Raises TransferRefused for too many or for too slow ones, ClientDisconnect where it breaks off."""
        while not self._ended:
            try:
                async with self._clock.wait(self._received):
                    chunk = await self._next()
            except TimeoutError:
                said = f"{self._clock.sentence(self._received)}. The file was not kept: send it again"
                raise TransferRefused(408, f"{said}, in smaller files if the connection is slow.") from None
            if self._received > self._limit:
                raise TransferRefused(413, self.too_large())
            if chunk:
                yield chunk

    async def drain(self) -> None:
        """Read on for a while: a client that still sends would else see a broken connection and not our sentence."""
        limit = self._received + _DRAINED
        with contextlib.suppress(TimeoutError, ClientDisconnect):
            async with asyncio.timeout(_DRAIN_SECONDS):
                while not self._ended and self._received < limit:
                    await self._next()

    def too_large(self) -> str:
        return f"The file is over the limit of {self._limit:,} bytes; nothing was kept."

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._ended = True
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        self._received += len(chunk)
        self._ended = not message.get("more_body", False)
        return chunk


class _Answer(StreamingResponse):
    """A streamed answer that breaks off, instead of ending, where the bytes do, or where the client is too slow at
    taking them: it must not take a part for the whole. `length` in bytes, None where it is not known before."""

    def __init__(
        self, chunks: AsyncGenerator[bytes, None], length: int | None, status: int, headers: dict[str, str], kind: str
    ) -> None:
        super().__init__(chunks, status, headers, kind)
        self._chunks = chunks
        self._length = length

    async def stream_response(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        sent = 0
        clock = _Clock()
        async with contextlib.aclosing(self._chunks) as chunks:
            try:
                async for chunk in chunks:
                    if chunk:
                        async with clock.wait(sent):
                            await send({"type": "http.response.body", "body": chunk, "more_body": True})
                        sent += len(chunk)
            except (ExecutorError, TimeoutError):
                return  # the session ended under it, or nobody takes the bytes
        if self._length in (None, sent):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def byte_range(header: str, size: int) -> tuple[int, int] | None:
    """(first byte, byte behind the last) of a `Range` header, empty where it lies outside, None where there is none or
    not one that we know: RFC 9110, section 14.2, lets those be ignored."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or found[0] == "bytes=-":
        return None
    if not found[1]:
        return (max(0, size - int(found[2])), size) if int(found[2]) else (0, 0)
    first = int(found[1])
    last = int(found[2]) if found[2] else size - 1
    if last < first:
        # a last byte before the first one makes it no range at all, unless the file is just too short
        return None if found[2] else (0, 0)
    return (first, min(last + 1, size)) if first < size else (0, 0)


def disposition(name: str) -> str:
    """`Content-Disposition` for a download under `name` (RFC 6266: a plain name for old clients, and the real one)."""
    real = clean(name)[-_MAX_NAME:]
    plain = "".join(char if " " <= char < "\x7f" and char not in '"\\%/' else "_" for char in real)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(real, safe='')}"


def media_type(name: str) -> str:
    """A type under which no browser runs what is inside: what could be a page is bytes. (An SVG may be a picture in an
    `<img>`; opened on its own it is a download in a sandbox.)"""
    kind = mimetypes.guess_type(name)[0] or ""
    return kind if _SHOWN_TYPES.match(kind) else "application/octet-stream"


def _said(status: int, info: FileInfo) -> Response:
    return JSONResponse(clean({"path": info.path, "size": info.size}), status, HEADERS)


def _refused(error: TransferRefused | ExecutorError) -> Response:
    status, headers = 409, dict[str, str]()
    match error:
        case TransferRefused():
            status, headers = error.status, error.headers
        case NoSuchSession():
            status = 410
        case NoSuchFile():
            status = 404
        case InvalidRequest():
            status = 400
        case BackendFailed():
            status = 503
        case Busy():
            status, headers = 503, {"Retry-After": "5"}
        case QuotaExceeded():
            waits = error.retry_after is not None
            status, headers = (429, {"Retry-After": str(math.ceil(error.retry_after or 0))}) if waits else (507, {})
        case FileRefused():
            status = 409
    headers = {name: value for name, value in headers.items() if name not in ("Content-Disposition", "ETag")}
    return JSONResponse({"error": f"Error: {clean(str(error))}"}, status, {**HEADERS, **headers})


async def _joined(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with contextlib.aclosing(rest):
        yield first
        async for chunk in rest:
            yield chunk


def transfer_routes(executor: Executor, links: Links, settings: Settings, bus: Bus) -> list[Any]:
    """The routes for one executor."""
    return Transfers(executor, links, settings, bus).routes()
