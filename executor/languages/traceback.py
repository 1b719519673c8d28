"""Short tracebacks: the cell's own lines, earlier cells and the user's files; of libraries only the last frame."""

from __future__ import annotations

import linecache
import re
import sys
from bdb import BdbQuit
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType

import IPython

from executor.languages.channel import ErrorData

MAX_MESSAGE = 4_000
"""Characters kept of an exception's message."""
MAX_NAME = 200
"""Characters kept of an exception's type."""
MAX_TRACEBACK = 12_000
"""Characters kept of a whole traceback."""
SHOWN_FRAMES = 8
"""Own frames shown at either end of a traceback."""
CONTEXT_LINES = 2
"""Lines shown on either side of the innermost own line."""

_CELL = re.compile(r"<cell (\d+)((?: part \d+)?)>")
_TIMED = ("<timed exec>", "<timed eval>")
_MACHINERY = (f"{Path(__file__).parent}/", f"{Path(IPython.__file__).parent}/", "<frozen ")
"""Files whose frames tell a user nothing: they run the cell."""
_LIBRARY = re.compile(r".*/(?:site-packages|dist-packages|lib/python3\.\d+)/(.+)")
_type_name = type.__dict__["__name__"].__get__
_NO_KEYBOARD = "no keyboard here: a debugger cannot wait for commands; print the values instead"


def cell_name(number: int, part: int = 0) -> str:
    """The file name that code of cell `number` is compiled under; parts are run by the cell itself."""
    return f"<cell {number} part {part}>" if part else f"<cell {number}>"


@dataclass(frozen=True, slots=True)
class Frame:
    """One line of a traceback; `own` means the user's code."""

    file: str
    line: int
    function: str
    own: bool


class Tracebacks:
    """Describes exceptions for a session whose files lie in `folder`."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.sources: dict[str, list[str]] = {}
        """Lines of each cell, by the name it was compiled under."""

    def describe(self, error: BaseException, cell: str | None = None) -> ErrorData:
        """`error` in short. `line` is the innermost line of `cell`, None where the cell has no part in it."""
        try:
            frames = list(self._frames(error.__traceback__, cell))
            line = next((frame.line for frame in reversed(frames) if frame.file == cell), None)
            if isinstance(error, SyntaxError) and error.filename == cell:
                line = error.lineno or None
            text = "\n".join([*self._stack(frames), *self._syntax(error), *_final(error), *self._causes(error, cell)])
            return {
                "type": _name(error),
                "message": _message(error),
                "line": line if isinstance(line, int) and line > 0 else None,
                "traceback": _cut(_encodable(text), MAX_TRACEBACK),
                "hint": "",
            }
        except Exception as failure:
            # exceptions are guest objects, any attribute of theirs may raise
            name = _name(error)
            return {
                "type": name,
                "message": f"(the exception could not be described: {type(failure).__name__})",
                "line": None,
                "traceback": name,
                "hint": "",
            }

    def place(self, file: str, line: int, function: str = "<module>") -> str:
        """`cell 2, line 3, in f`, or the short path of a file."""
        where = f", line {line}" + ("" if function == "<module>" else f", in {function}")
        if match := _CELL.fullmatch(file):
            return f"cell {match[1]}{match[2]}{where}"
        return f"{self._short(file)}{where}"

    def nearest(self, frame: FrameType | None) -> str | None:
        """The place of the user's code nearest to `frame`, outwards."""
        while frame is not None:
            file = frame.f_code.co_filename
            if self._own(file):
                return self.place(file, frame.f_lineno, frame.f_code.co_name)
            frame = frame.f_back
        return None

    def format_warning(
        self, message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
    ) -> str:
        """A warning in one line, named for the cell that caused it; stands in for `warnings.formatwarning`."""
        place = self.place(filename, lineno) if self._own(filename) else None
        place = place or self.nearest(sys._getframe(1)) or self.place(filename, lineno)
        return f"{place}: {category.__name__}: {_cut(str(message), MAX_MESSAGE)}\n"

    def _own(self, file: str) -> bool:
        if file.startswith("<"):
            return file.startswith("<cell ") or file in _TIMED
        if self.folder is None or not file.startswith("/"):
            return False
        folder = f"{self.folder}/"
        return file.startswith(folder) and not file.startswith(f"{folder}.")

    def _short(self, file: str) -> str:
        if self.folder is not None and file.startswith(f"{self.folder}/"):
            return file[len(str(self.folder)) + 1 :]
        match = _LIBRARY.fullmatch(file)
        return match[1] if match else file

    def _frames(self, trace: TracebackType | None, cell: str | None) -> Iterator[Frame]:
        while trace is not None:
            code = trace.tb_frame.f_code
            file, line = code.co_filename, trace.tb_lineno
            if cell and file in _TIMED:
                file, line = cell, line + 1  # the line of %%time itself is not part of what it compiles
            if not file.startswith(_MACHINERY):
                yield Frame(file, line, code.co_name, self._own(file))
            trace = trace.tb_next

    def _stack(self, frames: list[Frame]) -> list[str]:
        own = [frame for frame in frames if frame.own]
        if not own:
            return []
        entries: list[tuple[Frame, int]] = []
        for frame in own:
            if entries and entries[-1][0] == frame:
                entries[-1] = frame, entries[-1][1] + 1
            else:
                entries.append((frame, 1))
        lines = ["Traceback (most recent call last):"]
        left_out = len(entries) - 2 * SHOWN_FRAMES
        for index, (frame, times) in enumerate(entries):
            if left_out > 0 and SHOWN_FRAMES <= index < len(entries) - SHOWN_FRAMES:
                if index == SHOWN_FRAMES:
                    lines.append(f"  … {left_out} more frames …")
                continue
            innermost = index == len(entries) - 1
            lines.append(f"  {self.place(frame.file, frame.line, frame.function)}")
            lines += self._source(frame, CONTEXT_LINES if innermost else 0)
            if times > 1:
                lines.append(f"    (… {times - 1} more times)")
        if not frames[-1].own:
            last = frames[-1]
            lines.append(f"  {self.place(last.file, last.line, last.function)} (library)")
        return lines

    def _source(self, frame: Frame, context: int) -> list[str]:
        lines = self.sources.get(frame.file)
        if lines is None:
            try:
                lines = linecache.getlines(frame.file)
            except Exception:
                return []
        if not 0 < frame.line <= len(lines):
            return []
        first, last = max(1, frame.line - context), min(len(lines), frame.line + context)
        width = len(str(last))
        shown = []
        for number in range(first, last + 1):
            mark = ">" if number == frame.line else " "
            shown.append(f"  {mark} {number:>{width}} {_cut(lines[number - 1].rstrip(), 200)}".rstrip())
        return shown

    def _syntax(self, error: BaseException) -> list[str]:
        if not isinstance(error, SyntaxError) or not error.filename or not error.lineno:
            return []
        lines = [f"  {self.place(error.filename, error.lineno)}"]
        source = self.sources.get(error.filename, [])
        text = error.text or (source[error.lineno - 1] if 0 < error.lineno <= len(source) else "")
        if text:
            text = text.rstrip("\n")
            stripped = text.lstrip()
            lines.append(f"    {_cut(stripped, 200)}")
            column = (error.offset or 0) - 1 - (len(text) - len(stripped))
            if 0 <= column <= min(len(stripped), 200):
                same_line = error.end_lineno == error.lineno and (error.end_offset or 0) > (error.offset or 0)
                width = (error.end_offset or 0) - (error.offset or 0) if same_line else 1
                lines.append("    " + " " * column + "^" * max(1, min(width, len(stripped) - column)))
        return lines

    def _causes(self, error: BaseException, cell: str | None) -> list[str]:
        lines: list[str] = []
        seen = {id(error)}
        while len(lines) < 4:
            meant = error.__cause__ is not None
            former = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
            if former is None or id(former) in seen:
                break
            seen.add(id(former))
            own = [frame for frame in self._frames(former.__traceback__, cell) if frame.own]
            place = f" ({self.place(own[-1].file, own[-1].line, own[-1].function)})" if own else ""
            word = "caused by" if meant else "while handling"
            lines.append(f"{word} {_cut(_headline(former), 500)}{place}")
            error = former
        return lines


def _final(error: BaseException) -> list[str]:
    lines = [_headline(error)]
    notes = getattr(error, "__notes__", None)
    if isinstance(notes, list):
        lines += [_cut(str(note), 500) for note in notes[:10]]
    if isinstance(error, BaseExceptionGroup):
        lines += [f"  - {_cut(_headline(inner), 500)}" for inner in error.exceptions[:10]]
        if len(error.exceptions) > 10:
            lines.append(f"  … and {len(error.exceptions) - 10} more")
    return lines


def _headline(error: BaseException) -> str:
    message = _message(error)
    return f"{_name(error)}: {message}" if message else _name(error)


def _name(error: BaseException) -> str:
    # a guest's metaclass may answer anything for `__name__`
    return _cut(_type_name(type(error)), MAX_NAME)


def _message(error: BaseException) -> str:
    if isinstance(error, BdbQuit):
        return _NO_KEYBOARD
    try:
        text = error.msg if isinstance(error, SyntaxError) and isinstance(error.msg, str) else str(error)
    except Exception as failure:
        return f"(its message could not be made: {type(failure).__name__})"
    return _encodable(_cut(text, MAX_MESSAGE))


def _encodable(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters left out … {text[-half:]}"
