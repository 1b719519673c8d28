"""Frames between the server and a leader: JSON messages and byte chunks over one Unix stream socket.

A frame is a 4-byte big-endian length of what follows, one byte for its kind (`J` or `B`), then a JSON object, or a
4-byte channel number and raw bytes. Neither side trusts the other's bytes: lengths, nesting and types are checked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from executor.errors import BackendFailed

MAX_FRAME = 16 * 2**20
"""Longest frame in bytes; a leader keeps its reports well below."""

MAX_DEPTH = 64
"""Deepest nesting of a JSON message: what is displayed may nest, nothing sensible nests further."""

CHUNK = 256 * 2**10
"""Bytes of a file in one frame."""

_HEAD = struct.Struct("!IB")
_CHANNEL = struct.Struct("!I")
_JSON, _BYTES = ord("J"), ord("B")
_dumps = json.JSONEncoder(separators=(",", ":")).encode


class FrameError(BackendFailed):
    """The other side sent something that is no frame or says nothing that makes sense, or what was to be sent is too
    long for one. What arrived broken is the connection's end."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Raw bytes for a numbered channel (a request or an open file)."""

    channel: int
    data: bytes


def size_of(value: object) -> int:
    """Bytes that a JSON value takes in a frame: more than it has characters, where these are not ASCII."""
    return len(_dumps(value))


def encode(message: dict[str, Any]) -> bytes:
    """The frame of a JSON message. Raises FrameError where it would be too long."""
    body = _dumps(message).encode("ascii")
    if len(body) >= MAX_FRAME:
        raise FrameError(f"A message of {len(body):,} bytes is too long; at most {MAX_FRAME:,} can be sent at once.")
    return _HEAD.pack(len(body) + 1, _JSON) + body


def encode_chunk(channel: int, data: bytes) -> bytes:
    """The frame of a byte chunk."""
    return _HEAD.pack(len(data) + 5, _BYTES) + _CHANNEL.pack(channel) + data


class Decoder:
    """Cuts a byte stream into messages and chunks. Raises FrameError at the first thing that is neither."""

    def __init__(self, *, max_frame: int = MAX_FRAME) -> None:
        self._max_frame = max_frame
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any] | Chunk]:
        """The frames that `data` completes, in order."""
        self._buffer += data
        while len(self._buffer) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._buffer)
            if not 1 <= length <= self._max_frame:
                raise FrameError(f"frame of {length} bytes, at most {self._max_frame} are allowed")
            end = 4 + length
            if kind == _BYTES:
                if length < 5:
                    raise FrameError("chunk without a channel")
                if len(self._buffer) < end:
                    return
                (channel,) = _CHANNEL.unpack_from(self._buffer, _HEAD.size)
                with memoryview(self._buffer) as view:  # a slice of the buffer itself would be one copy more
                    frame: dict[str, Any] | Chunk = Chunk(channel, bytes(view[_HEAD.size + 4 : end]))
            elif kind == _JSON:
                if len(self._buffer) < end:
                    return
                frame = parse(bytes(self._buffer[_HEAD.size : end]))
            else:
                raise FrameError(f"frame of unknown kind {kind}")
            del self._buffer[:end]
            yield frame


def parse(body: bytes) -> dict[str, Any]:
    """A JSON object of bounded depth. Raises FrameError for anything else."""
    try:
        message = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {error}") from None
    if not isinstance(message, dict):
        raise FrameError("a message must be a JSON object")
    # counting brackets is quick and almost always settles it; only a message with many of them is walked
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and deeper_than(message, MAX_DEPTH):
        raise FrameError(f"JSON nested deeper than {MAX_DEPTH}")
    return message


def deeper_than(value: Any, limit: int) -> bool:
    """Whether a JSON value nests more than `limit` levels deep."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True
