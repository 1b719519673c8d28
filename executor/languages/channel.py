"""The control channel between a leader and the process that runs a language: frames, events, and who speaks how.

Frames are four bytes of big-endian length and that many bytes of UTF-8 JSON, one object each. The far end runs guest
code, so whatever arrives is checked before anyone looks at it: a wrong frame is a `ProtocolError`, and the leader ends
that worker.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict

from executor.results import Language

MAX_FRAME = 8 * 1024 * 1024
"""Largest frame in bytes, its length not counted."""

MAX_NOTICES = 50
MAX_VARIABLES = 50
MAX_WORDS = 200
"""Characters of each text that describes a variable."""
MAX_ID = 200
MAX_NAMES = 500
"""Names told of what a state holds, and of what it lost."""
MAX_PROBLEM = 500
MAX_ERROR = 50_000
"""Characters of each text of an error; what an honest worker sends stays well below."""
MAX_NOTICE = 4_000
"""Characters of one notice."""
PICTURE_TYPES = ("image/png", "image/webp", "image/jpeg", "image/gif")

STATE_HEAD = 256 * 1024
"""Bytes of the first line of a state file, at most."""


class ProtocolError(Exception):
    """A worker sent what no honest worker sends; it cannot be trusted to go on."""


class ErrorData(TypedDict):
    """What the guest's code raised. `line` counts from 1 within the cell, `hint` says what to do next, if known."""

    type: str
    message: str
    line: int | None
    traceback: str
    hint: str


class VariableData(TypedDict):
    """A variable that a cell made or changed; `summary` is its value if that is short, else its size."""

    name: str
    type: str
    summary: str
    change: Literal["new", "changed"]


class PictureData(TypedDict):
    """`data` is base64, width and height are pixels, `path` is relative to the session's folder."""

    mime: str
    data: str
    width: int
    height: int
    path: str | None
    alt: str


class Ready(TypedDict):
    """The interpreter waits for its first cell."""

    event: Literal["ready"]


class Display(TypedDict):
    """A value that the cell `id` displayed: a MIME bundle, and a picture where there is one."""

    event: Literal["display"]
    id: str
    data: dict[str, Any]
    picture: PictureData | None
    is_result: bool


class Done(TypedDict):
    """The cell `id` ended and everything it printed has been written."""

    event: Literal["done"]
    id: str
    status: Literal["ok", "error", "interrupted"]
    error: ErrorData | None
    return_code: int
    notices: list[str]
    variables: list[VariableData]


class LostName(TypedDict):
    """A variable that no saved state can bring back: its type, why in a few words (`open socket`), and the cell that
    made it, as far as that is known."""

    name: str
    type: str
    reason: str
    cell: int | None


class Restored(TypedDict):
    """The interpreter has taken over a saved state, or has failed to: then `problem` is a sentence.

    `id` is that of the order. `names` came back; `lost` lists what was lost at the saving or now.
    """

    event: Literal["restored"]
    id: str
    names: list[str]
    lost: list[LostName]
    problem: str


Event = Ready | Display | Done | Restored


class Interpreter(Protocol):
    """How a leader speaks with one language's process. Holds no descriptors and no clock; one object per process.

    The leader makes one AF_UNIX stream socketpair for each number in `CONTROL`, puts the worker's end at that number
    in the child, and executes `command()` with `environment()` on top of its scrubbed environment. Bytes from
    `execute` and `interrupt` go to the first of them, bytes that come from it go to `feed`.
    """

    language: Language
    CONTROL: tuple[int, ...]
    interrupt_target: Literal["worker", "foreground"] | None
    """Whom SIGINT goes to for a soft stop: the worker alone, its whole process group (`foreground`), or nobody."""

    def command(self) -> list[str]:
        """Arguments to execute, the first an absolute path."""

    def environment(self) -> dict[str, str]:
        """Variables to add to the scrubbed environment."""

    def execute(self, execution_id: str, code: str, number: int) -> bytes:
        """Bytes that start a cell; `number` counts the session's cells from 1 and is how messages name it."""

    def interrupt(self) -> bytes | None:
        """Bytes that stop the running cell and keep its variables, or None: send SIGINT to `interrupt_target`."""

    def save(self, path: str, *, limit: int, without: Sequence[str] = (), fork: bool = True) -> bytes | None:
        """Bytes that have the interpreter, once it is idle, write its state to `path` below the session's folder.

        None where there is nothing to ask: the state lies in files already. The file appears under that name when it
        is complete, or the attempt has failed (`StateHead.problem`); no event tells so. `limit` is its size in bytes at
        most, `without` names variables to leave out, `fork=False` writes from the interpreter itself where a forked
        copy of it does not get through.
        """

    def restore(self, order: str, path: str) -> bytes | None:
        """Bytes that have a fresh interpreter take over the state in `path`; it answers with `Restored` of id `order`.

        None where it has taken over by itself what lies in files.
        """

    def feed(self, data: bytes) -> list[Event]:
        """Events in the bytes that arrived. Raises ProtocolError; the object is of no use after that."""

    def after_exit(self, return_code: int, *, interrupted: bool = False) -> Done | None:
        """How the running cell ended where the process ended by its own will; None where that is a crash."""

    def kept(self) -> str:
        """Sentences on what of the ended process's state the next one takes over, and what is lost."""


@dataclass(frozen=True, slots=True)
class StateHead:
    """The first line of a state file, as JSON; what follows is the interpreter's own.

    `problem` is a sentence where nothing could be saved. `versions` are those of the language and of libraries whose
    objects are in it.
    """

    names: tuple[str, ...]
    lost: tuple[LostName, ...]
    problem: str
    versions: Mapping[str, str]


def encode(message: Mapping[str, Any]) -> bytes:
    """One frame. Raises ValueError where it would be over `MAX_FRAME`."""
    body = json.dumps(message, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    if len(body) > MAX_FRAME:
        raise ValueError(f"A frame of {len(body)} bytes is over the {MAX_FRAME} that a channel carries.")
    return len(body).to_bytes(4, "big") + body


class Decoder:
    """Cuts a stream of bytes into JSON objects; keeps at most one frame and what came with it."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The objects that are complete now. Raises ProtocolError."""
        pending = self._pending
        pending += data
        found: list[dict[str, Any]] = []
        start = 0
        while len(pending) - start >= 4:
            size = int.from_bytes(pending[start : start + 4], "big")
            if size > MAX_FRAME:
                raise ProtocolError(f"A frame of {size} bytes was announced; {MAX_FRAME} is the most.")
            if len(pending) - start - 4 < size:
                break
            found.append(parse(bytes(pending[start + 4 : start + 4 + size])))
            start += 4 + size
        if start:
            del pending[:start]
        return found


_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object in a frame. Raises ProtocolError."""
    try:
        # decoded here: given bytes, json takes UTF-16 and halves of surrogate pairs, too
        message = json.loads(body.decode(), parse_constant=_refuse_constant)
        if _ESCAPED_SURROGATE.search(body):
            # half a surrogate pair cannot be written as UTF-8 and would fail much later, in trusted code
            message = _without_surrogates(message)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"A frame is not JSON: {type(error).__name__}.") from None
    if not isinstance(message, dict):
        raise ProtocolError("A frame is not a JSON object.")
    return message


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return value
