"""Line: a leader's end of the connection to the server."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from typing import Any

from executor.local import wire
from executor.local.loop import Loop


class Line:
    """Sends and receives frames. `cut` is set once the server is gone or speaks nonsense."""

    def __init__(self, server: socket.socket, loop: Loop, obey: Callable[[dict[str, Any] | wire.Chunk], None]) -> None:
        server.setblocking(False)
        self.cut = False
        self._server = server
        self._loop = loop
        self._obey = obey
        self._decoder = wire.Decoder()
        self._unsent = bytearray()
        loop.add(server.fileno(), self._on_ready)

    def tell(self, message: dict[str, Any]) -> None:
        """Send a message, as soon as the server takes it."""
        self.write(wire.encode(message))

    def write(self, frame: bytes) -> None:
        """Send a frame, as soon as the server takes it."""
        self._unsent += frame
        self._flush()

    def farewell(self, message: dict[str, Any]) -> None:
        """Send a last message, waiting a second at most for the server to take it."""
        with contextlib.suppress(OSError):
            self._server.settimeout(1)
            self._server.sendall(bytes(self._unsent) + wire.encode(message))

    def _on_ready(self, readable: bool, room: bool) -> None:
        if room:
            self._flush()
        if not readable:
            return
        try:
            data = self._server.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.cut = True
            return
        try:
            for frame in self._decoder.feed(data):
                self._obey(frame)
        except wire.FrameError:
            self.cut = True

    def _flush(self) -> None:
        try:
            while self._unsent:
                del self._unsent[: self._server.send(self._unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self.cut = True
            self._unsent.clear()
        self._loop.want_room(self._server.fileno(), bool(self._unsent))
