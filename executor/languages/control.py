"""The worker's end of the control channel: frames that guest code can neither tear nor lose by raising in between.

Guest signal handlers, KeyboardInterrupt and asynchronous exceptions may strike after any instruction of ours. So the
state of a transfer changes only inside single C calls: `list.extend(map(f, ...))` stores what `f` returned before the
interpreter looks at signals again.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from select import select
from typing import Any

from executor.languages.channel import MAX_FRAME

# Bound once: guest code may replace what the modules hold.
_exit = os._exit
_GONE = frozenset({errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF})
_getpid = os.getpid
_select = select
_sleep = time.sleep
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
        self._held = b""
        self.taken = False
        """Set by `receive`; whoever is done with the frame clears it."""
        self._draining = False
        self._pid = _getpid()

    @property
    def detached(self) -> bool:
        """Whether this process is a fork of the worker, which has no say on the channel."""
        return _getpid() != self._pid

    def detach(self) -> None:
        """Close the channel in a forked child."""
        self._outgoing.clear()
        self._sock.close()

    def has_work(self) -> bool:
        """Whether a frame of the leader's was taken and is not done with, or has arrived."""
        return self.taken or bool(self._incoming) or bool(_select([self._sock], [], [], 0)[0])

    def send(self, message: Mapping[str, Any], *, hold: bool = False) -> None:
        """Send one frame, in order. Raises ValueError where it is over the limit or no JSON.

        Where an exception strikes meanwhile, the rest of the frame leaves with the next `send` or `flush`. With `hold`
        it leaves together with the next one, which is about to follow: one wake-up of the leader less.
        """
        body = _encode(message).encode()
        if len(body) > MAX_FRAME:
            raise ValueError(f"{len(body)} bytes are over the {MAX_FRAME} that a frame carries.")
        if self.detached:
            return
        frame = len(body).to_bytes(4, "big") + body
        if hold:
            self._held += frame
            return
        # signals are looked at after calls and at loops only: up to the end of `append` nothing comes between
        held, self._held = self._held, b""
        self._outgoing.append((held + frame, []))
        # Whoever finds a drain going on (in another thread, or in this one below a signal handler) leaves it the frame.
        while self._outgoing and not self._draining:
            self._drain()

    def flush(self) -> None:
        """Send all that is left, whatever strikes meanwhile."""
        while self._outgoing:
            try:
                self._drain()
                if self._outgoing:
                    _sleep(0.001)  # another thread is at it
            except BaseException:  # noqa: S112  a guest's signal handler raised: the frames still have to leave
                continue

    def _drain(self) -> None:
        # No lock: an exception right after `acquire` would leave it locked for good. Between this test and the store
        # comes neither a call nor a loop, so neither another thread nor a signal handler.
        if self._draining:
            return
        self._draining = True
        try:
            while self._outgoing:
                frame, counts = self._outgoing[0]
                offset = sum(counts)
                if offset == len(frame):
                    self._outgoing.popleft()
                else:
                    counts.extend(map(self._send, (memoryview(frame)[offset:],), (socket.MSG_NOSIGNAL,)))
        except OSError as error:
            _exit_if_gone(error)
            raise
        finally:
            self._draining = False

    def receive(self) -> dict[str, Any]:
        """The next frame. Exceptions of the guest's signal handlers are reported on stderr and do no harm."""
        while True:
            try:
                if (frame := self._cut()) is not None:
                    return frame
                self._incoming.extend(map(self._recv, (1 << 16,)))
                if not self._incoming[-1]:
                    _exit(0)
            except BaseException as error:
                _exit_if_gone(error)
                _report(error)

    def _cut(self) -> dict[str, Any] | None:
        data = b"".join(self._incoming)
        size = int.from_bytes(data[:4], "big")
        if len(data) < 4 or len(data) < 4 + size:
            return None
        frame: dict[str, Any] = _decode(data[4 : 4 + size].decode())
        rest = [data[4 + size :]] if len(data) > 4 + size else []
        self.taken = True
        self._incoming = rest
        return frame


def _exit_if_gone(error: BaseException) -> None:
    # by number: a handler of the guest's may raise TimeoutError, which is an OSError, too
    if isinstance(error, OSError) and error.errno in _GONE:
        _exit(1)


def _report(error: BaseException) -> None:
    try:
        sys.stderr.write(f"{type(error).__name__} between two cells: {error}\n")
    except BaseException:
        return
