"""Python in a session: what the zygote preloads, what a worker runs, and how a leader speaks with it."""

from __future__ import annotations

import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

from executor.errors import InvalidRequest
from executor.languages.channel import Decoder, Event, encode
from executor.languages.checks import check_event
from executor.results import Language

if TYPE_CHECKING:
    from executor.languages.notebook import Parts

PICTURE_CHARS = 110_000
"""Base64 characters that the pictures of one cell may take together."""

_ROOT = str(Path(__file__).parents[2])
_COMMAND = """
import socket, sys
from pathlib import Path
sys.path.append(sys.argv[1])
from executor.languages.python import main, preload
preload()
main(socket.socket(fileno=int(sys.argv[2])), folder=Path.cwd())
"""


class Python:
    """The leader's side: frames for cells, checked events from the worker. One object per worker."""

    language: Language = "python"
    CONTROL: tuple[int, ...] = (3,)
    interrupt_target: Literal["worker", "foreground"] | None = "worker"

    def __init__(self, *, picture_chars: int = PICTURE_CHARS, variables: bool = True) -> None:
        self._picture_chars = picture_chars
        self._variables = variables
        self._decoder = Decoder()

    def command(self) -> list[str]:
        """The slow way to a worker, about a second of loading; a fork that calls `main` has that behind it."""
        return [sys.executable, "-c", _COMMAND, _ROOT, str(self.CONTROL[0])]

    def environment(self) -> dict[str, str]:
        """Nothing is needed."""
        return {}

    def execute(self, execution_id: str, code: str, number: int) -> bytes:
        """Bytes that start a cell. Raises InvalidRequest for code that is no text."""
        message = {"op": "execute", "id": execution_id, "code": code, "number": number}
        try:
            return encode({**message, "picture_chars": self._picture_chars, "variables": self._variables})
        except UnicodeEncodeError as error:
            raise InvalidRequest(
                f"The code holds half a character (a lone surrogate), {error.reason}; send whole characters."
            ) from None

    def save(self, path: str, *, limit: int, without: Sequence[str] = (), fork: bool = True) -> bytes:
        """Bytes that have the worker save its variables; a copy of it does the work, unless `fork` is off."""
        return encode({"op": "save", "path": path, "limit": limit, "without": list(without), "fork": fork})

    def restore(self, order: str, path: str) -> bytes:
        """Bytes that have a fresh worker take over saved variables."""
        return encode({"op": "restore", "id": order, "path": path})

    def interrupt(self) -> None:
        """There are no bytes for it: SIGINT goes to the worker process."""

    def feed(self, data: bytes) -> list[Event]:
        """Events in the bytes that arrived. Raises ProtocolError; the object is of no use after that."""
        return [check_event(message) for message in self._decoder.feed(data)]

    def after_exit(self, return_code: int, *, interrupted: bool = False) -> None:
        """Always a crash: even `exit()` in a cell does not end the process."""

    def kept(self) -> str:
        """Nothing."""
        return "Its variables and imports are lost; files and the other languages are kept."


_parts: Parts | None = None


def preload() -> None:
    """Load and warm up everything that workers share. Once, in the zygote; no thread and no descriptor is left behind.

    The environment must hold OPENBLAS_NUM_THREADS=1, OMP_NUM_THREADS=1, JE_ARROW_MALLOC_CONF=background_thread:false.
    """
    # here and not above: who only wants to speak with a worker must not pay a second of imports
    from executor.languages.warming import warm_up  # noqa: PLC0415

    global _parts  # noqa: PLW0603  IPython's shell is one per process, too
    _parts = warm_up()


def main(control: socket.socket, *, folder: Path) -> NoReturn:
    """Be the session's Python worker on `control`, with `folder` as working directory. Never returns.

    Called in a fork of the zygote, inside the sandbox, with the environment set and 0, 1 and 2 open.
    """
    from executor.languages.notebook import serve  # noqa: PLC0415  loaded by `preload` already

    if _parts is None:
        raise RuntimeError("Nothing is loaded: preload() has to run before the fork.")
    serve(_parts, control, folder)
