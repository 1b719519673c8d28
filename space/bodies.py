"""Reads the body of an MCP POST before the SDK does: size, texts that cannot be taken, and cancels."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES = 8 * 1024 * 1024
REFUSAL = "space.refusal"
"""Scope key: a sentence with which the tool call in this request must be refused."""

_DRAINED = 8 * MAX_BODY_BYTES
_READ_SECONDS = 120.0
_KEPT_ENDS = 64 * 1024
_CANCEL = b"notifications/cancelled"
_MAX_CANCEL_BYTES = 4096
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
# Both SDKs write the id behind the parameters, others in front of them.
_ID_LAST = re.compile(rb'"id"\s*:\s*(\d+|"[^"\\]{0,200}")\s*(?:,\s*"jsonrpc"\s*:\s*"2\.0"\s*)?\}\s*$')
_ID_FIRST = re.compile(rb'^\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(\d+|"[^"\\]{0,200}")\s*,')

OnCancel = Callable[[Scope, str | int], None]


class BodyReader:
    """ASGI in front of `app`: hands over bodies of up to `MAX_BODY_BYTES`.

    A larger body, or one with half a surrogate pair, reaches `app` as an empty call under the same id with the
    sentence in `scope[REFUSAL]`: so the caller gets an answer in the place where it waits for one, instead of an HTTP
    status that clients over SSE never look at. `on_cancel` is told of every `notifications/cancelled`.
    """

    def __init__(self, app: ASGIApp, on_cancel: OnCancel, on_oversize: Callable[[Scope], None]) -> None:
        self._app = app
        self._on_cancel = on_cancel
        self._on_oversize = on_oversize

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        try:
            async with asyncio.timeout(_READ_SECONDS):
                body, size = await _read(receive)
        except TimeoutError:
            await _refused(scope, receive, send, 408, f"The request did not arrive within {_READ_SECONDS:.0f} s.")
            return
        if size < 0:
            return  # the client is gone
        if size > MAX_BODY_BYTES:
            self._on_oversize(scope)
            sentence = (
                f"this call is over the limit of {MAX_BODY_BYTES // 2**20} MB; "
                "send less, and large files in several calls of upload_file with offset and final."
            )
            answerable = _emptied_call(body)
            if answerable is None:
                await _refused(scope, receive, send, 413, f"Error: {sentence}")
                return
            body, scope = answerable, _refusing(scope, answerable, sentence)
        elif _CANCEL in body and len(body) <= _MAX_CANCEL_BYTES:
            self._note_cancel(scope, body)
        elif _SURROGATE.search(body) and (emptied := _without_lone_surrogates(body)) is not None:
            sentence = (
                "the call holds half of a surrogate pair (a \\ud800 to \\udfff of its own), which is no text; "
                "write the character itself, or build it inside the code."
            )
            body, scope = emptied, _refusing(scope, emptied, sentence)
        await self._app(scope, _replay(body, receive), send)

    def _note_cancel(self, scope: Scope, body: bytes) -> None:
        try:
            message = json.loads(body)
            request_id = message["params"]["requestId"]
        except (ValueError, KeyError, TypeError):
            return  # the SDK answers what is malformed
        if message.get("method") == _CANCEL.decode() and isinstance(request_id, (str, int)):
            self._on_cancel(scope, request_id)


async def _read(receive: Receive) -> tuple[bytes, int]:
    """The body and its size; of one that is too large only head and tail, -1 where the client went away."""
    chunks: list[bytes] = []
    size = 0
    head = tail = b""
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"", -1
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size <= MAX_BODY_BYTES:
            chunks.append(chunk)
        else:
            if not head:
                head = b"".join((*chunks, chunk))[:_KEPT_ENDS]
                chunks.clear()
            tail = (tail + chunk)[-_KEPT_ENDS:]
        if not message.get("more_body", False) or size > _DRAINED:
            break
    if size <= MAX_BODY_BYTES:
        return (chunks[0] if len(chunks) == 1 else b"".join(chunks)), size
    # a message cut short by us has no tail to be trusted
    return head + b"\n" + (tail if size <= _DRAINED else b""), size


def _emptied_call(ends: bytes) -> bytes | None:
    """The tools/call whose head and tail are `ends`, without its arguments; None where it cannot be told."""
    if b'"tools/call"' not in ends:
        return None
    found = _ID_LAST.search(ends[-1024:]) or _ID_FIRST.search(ends[:1024])
    return None if found is None else _empty(json.loads(found[1]))


def _without_lone_surrogates(body: bytes) -> bytes | None:
    """The call without its arguments if it holds a lone surrogate; None if all of them come in pairs."""
    try:
        message = json.loads(body)
        json.dumps(message, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        if not isinstance(message, dict) or message.get("method") != "tools/call":
            return None
        request_id = message.get("id")
        return _empty(request_id) if isinstance(request_id, (str, int)) else None
    except ValueError:
        return None
    return None


def _refusing(scope: Scope, body: bytes, sentence: str) -> Scope:
    """The scope of a request that now has `body`."""
    headers = [header for header in scope["headers"] if header[0] != b"content-length"]
    headers.append((b"content-length", str(len(body)).encode()))
    return {**scope, "headers": headers, REFUSAL: sentence}


def _empty(request_id: str | int) -> bytes:
    call = {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": {"name": "refused", "arguments": {}}}
    return json.dumps(call).encode()


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refused(scope: Scope, receive: Receive, send: Send, status: int, sentence: str) -> None:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": sentence}}
    await JSONResponse(error, status)(scope, receive, send)
