"""The worker's end of the control channel: frames that guest code can neither tear nor lose by raising in between.

Guest signal handlers, KeyboardInterrupt and asynchronous exceptions may strike after any instruction of ours. So the
state of a transfer changes only inside single C calls: `list.extend(map(f, ...))` stores what `f` returned before the
interpreter looks at signals again.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import deque
from collections.abc import Mapping
from select import select
from threading import Lock
from typing import Any

from executor.languages.channel import MAX_FRAME

# Bound once: guest code may replace what the modules hold.
_exit = os._exit
_getpid = os.getpid
_select = select
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder().decode


class Control:
    """Sends and receives frames; ends the process when the leader is gone. `detach` makes a fork silent."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(True)
        self._sock = sock
        self._recv = sock.recv
        self._send = sock.send
        self._incoming: list[bytes] = []
        self._outgoing: deque[tuple[bytes, list[int]]] = deque()
        self._sending = Lock()
        self._pid = _getpid()

    @property
    def detached(self) -> bool:
        """Whether this process is a fork of the worker, which has no say on the channel."""
        return _getpid() != self._pid

    def detach(self) -> None:
        """Close the channel in a forked child."""
        self._outgoing.clear()
        self._sock.close()

    def waiting(self) -> bool:
        """Whether a frame of the leader lies unread."""
        return bool(_select([self._sock], [], [], 0)[0])

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one frame, in order. Raises ValueError where it is over the limit or no JSON.

        Where an exception strikes meanwhile, the rest of the frame leaves with the next `send` or `flush`.
        """
        body = _encode(message).encode()
        if len(body) > MAX_FRAME:
            raise ValueError(f"{len(body)} bytes are over the {MAX_FRAME} that a frame carries.")
        if self.detached:
            return
        self._outgoing.append((len(body).to_bytes(4, "big") + body, []))
        # Who finds the lock taken (another thread, or this one below a signal handler) leaves the frame to its holder.
        while self._outgoing and self._sending.acquire(blocking=False):
            self._drain()

    def flush(self) -> None:
        """Send all that is left, whatever strikes meanwhile."""
        while self._outgoing:
            try:
                self._sending.acquire()
                self._drain()
            except BaseException:  # noqa: S112  a guest's signal handler raised: the frames still have to leave
                continue

    def _drain(self) -> None:
        try:
            while self._outgoing:
                frame, counts = self._outgoing[0]
                offset = sum(counts)
                if offset == len(frame):
                    self._outgoing.popleft()
                else:
                    counts.extend(map(self._send, (memoryview(frame)[offset:],), (socket.MSG_NOSIGNAL,)))
        except OSError:
            _exit(1)
        finally:
            self._sending.release()

    def receive(self) -> dict[str, Any]:
        """The next frame. Exceptions of the guest's signal handlers are reported on stderr and do no harm."""
        while True:
            try:
                if (frame := self._cut()) is not None:
                    return frame
                self._incoming.extend(map(self._recv, (1 << 16,)))
                if not self._incoming[-1]:
                    _exit(0)
            except OSError:
                _exit(1)
            except BaseException as error:
                _report(error)

    def _cut(self) -> dict[str, Any] | None:
        data = b"".join(self._incoming)
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 or len(data) < 4 + size:
            return None
        frame: dict[str, Any] = _decode(data[4 : 4 + size].decode())
        self._incoming = [data[4 + size :]] if len(data) > 4 + size else []
        return frame


def _report(error: BaseException) -> None:
    try:
        sys.stderr.write(f"{type(error).__name__} between two cells: {error}\n")
    except BaseException:
        return
