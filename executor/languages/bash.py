"""bash: one real shell per session, driven by bash_driver.sh; this is the leader's side of it.

`exit`, a failing command under `set -e`, an unset variable under `set -u` and an interrupt all end the shell, as they
end any shell; before it goes, it writes its state to a file, and the process that replaces it takes the state over:
variables (those of the function that exits as well, as globals), functions, aliases, traps, options, umask, positional
parameters and the folder; not jobs, `$!`, `$?` and open files. What ends it without a word (`exec`, SIGKILL, a guest's
own trap of EXIT set in the same cell) leaves the state as it was before the cell. -e, -u, -v, -x and the traps of DEBUG
and SIGINT hold for the cell that sets them.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from executor.languages.channel import (
    MAX_ID,
    MAX_NAMES,
    MAX_WORDS,
    Done,
    ErrorData,
    Event,
    LostName,
    ProtocolError,
    StateHead,
)
from executor.results import Language

DRIVER = Path(__file__).with_name("bash_driver.sh")
STATE_FILE = Path(".tmp", ".bash-state")
"""Below the session's folder: says in which file beside it a shell left its state for the next one."""

MAX_STATE = 1 << 20
"""Bytes of a state that are looked through for names."""

_OWN = re.compile(
    r"_|__cell_\w+|BASH\w*|COLUMNS|COMP_\w+|DIRSTACK|EPOCH\w+|EUID|FUNCNAME|GIT_CONFIG_NOSYSTEM|GROUPS|HISTCMD|HOME"
    r"|HOSTNAME|HOSTTYPE|IFS|JE_ARROW_MALLOC_CONF|LANG|LC_ALL|LINENO|LINES|LOGNAME|MACHTYPE|MPLBACKEND|MPLCONFIGDIR|NO_COLOR"
    r"|NODE_\w+|OLDPWD|OMP_NUM_THREADS|OPENBLAS_NUM_THREADS|OPTERR|OPTIND|OSTYPE|PATH|PIPESTATUS|PPID|PS4|PWD"
    r"|PYTHON\w*|RANDOM|SECONDS|SHELL|SHELLOPTS|SHLVL|SRANDOM|TERM|TMPDIR|UID|USER|XDG_\w+"
)
"""Names that every shell here has."""

MAX_LINE = 512
"""Longest line in bytes that the driver writes."""


class Bash:
    """Speaks with the bash of one session; see `channel.Interpreter`.

    The process must lead a process group of its own and start with SIGINT and SIGPIPE at their defaults. It ends after
    every interrupt and whenever a cell exits: `after_exit` then says what the cell gave, and a new `Bash` goes on.
    """

    language: Language = "bash"
    CONTROL: tuple[int, ...] = (57,)
    interrupt_target: Literal["worker", "foreground"] | None = "foreground"

    def __init__(self, *, folder: Path, memory_mb: int) -> None:
        self._folder = folder
        self._memory_mb = memory_mb
        self._pending = b""
        self._execution_id = ""
        self._number = 0

    def command(self) -> list[str]:
        """bash with the driver as its script."""
        return [shell(), "--norc", "--noprofile", "-c", script(), "bash", str(self._folder / STATE_FILE)]

    def environment(self) -> dict[str, str]:
        """Nothing: the scrubbed environment is what the guest's exports build on."""
        return {}

    def execute(self, execution_id: str, code: str, number: int) -> bytes:
        """A header line and the code. Raises ValueError for code with a NUL byte, which no shell can hold."""
        if "\0" in code:
            raise ValueError("Bash code cannot hold a NUL byte.")
        self._execution_id, self._number = execution_id, number
        body = code.encode()
        return f"{execution_id} {number} {len(body)}\n".encode() + body

    def interrupt(self) -> None:
        """None: SIGINT to the shell's process group; jobs in the background ignore it, as bash starts them so."""
        return

    def feed(self, data: bytes) -> list[Event]:
        """Events. Raises ProtocolError."""
        *lines, self._pending = (self._pending + data).split(b"\n")
        if len(self._pending) > MAX_LINE:
            raise ProtocolError("A line of the bash channel is too long.")
        return [self._event(line) for line in lines]

    def _event(self, line: bytes) -> Event:
        if line == b"ready":
            return {"event": "ready"}
        match = re.fullmatch(rb"done ([\x21-\x7e]{1,%d}) (\d{1,3})" % MAX_ID, line)
        if match is None:
            raise ProtocolError("A line of the bash channel is no event.")
        return _done(match[1].decode(), int(match[2]))

    def after_exit(self, return_code: int, *, interrupted: bool = False) -> Done | None:
        """How the running cell ended when the process ended with `return_code` (negative: by that signal).

        None where no cell ran or a signal killed the shell: that is a crash, and `kept()` says what is left.
        """
        if return_code < 0 or not self._execution_id:
            return None
        how = "The interrupt" if interrupted else f"The cell ended the shell with status {return_code}, which"
        done = _done(self._execution_id, return_code, interrupted=interrupted)
        done["notices"] = [f"{how} restarted bash. {self.kept()}"]
        return done

    def save(self, path: str, *, limit: int, without: Sequence[str] = (), fork: bool = True) -> None:
        """Nothing to ask: after every cell the state lies in files."""

    def restore(self, order: str, path: str) -> None:
        """Nothing to ask: a shell takes over what it finds when it starts."""

    def saved(self) -> int:
        """The number of the cell after which the state was written last, 0 where it never was."""
        return self._marker()[1]

    def state(self) -> StateHead | None:
        """What the state files hold, for the reader: names of variables and functions, and as lost the jobs that run
        and the descriptors that are open; None where no shell ran.

        The guest can forge it, and then reads a wrong sentence.
        """
        if (side := self._marker()[2]) == "":
            return None
        # after a NUL the files hold what is lost, and after the next one what is left of a longer former state
        parts = self._read(Path(f"{STATE_FILE}.{side}"), MAX_STATE).split(b"\0", 2)
        text = parts[0].decode("utf-8", "replace")
        found: list[str] = re.findall(r"^declare -[-aAilnrtux]+ (\w+)(?==|$)", text, re.MULTILINE)
        found += [f"{name}()" for name in re.findall(r"^declare -f\w* (\S+)$", text, re.MULTILINE)]
        names = [name for name in found if not _OWN.fullmatch(name) and len(name) <= MAX_WORDS]
        lost = _lost(parts[1].decode("utf-8", "replace")) if len(parts) == 3 else []
        return StateHead(tuple(names[:MAX_NAMES]), tuple(lost[:MAX_NAMES]), "", {})

    def kept(self) -> str:
        """A sentence on what a shell started now takes over from this one."""
        lost = "Background jobs go on, but `jobs` and `wait` no longer know them."
        marker = self._marker()[:2]
        if marker == ("exit", self._number):
            return f"Variables, functions, aliases, options and the current folder are kept. {lost}"
        if marker[0] in ("cell", "exit"):
            return (
                "Variables, functions, aliases, options and the current folder are as they were before this cell. "
                + lost
            )
        return f"Variables, functions and the current folder are lost; files are kept. {lost}"

    def _marker(self) -> tuple[str, int, str]:
        """When the state file was written, and which one. The guest can forge it, and then reads a wrong sentence."""
        match = re.fullmatch(rb"(cell|exit) (\d{1,9}) ([ab]) *\n", self._read(STATE_FILE, 64))
        return (match[1].decode(), int(match[2]), match[3].decode()) if match else ("none", 0, "")

    def _read(self, path: Path, size: int) -> bytes:
        """The start of a file that the guest may have put something else in place of; empty where it cannot be read."""
        try:
            found = os.open(self._folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return b""
        try:
            return os.read(found, size) if stat.S_ISREG(os.fstat(found).st_mode) else b""
        except OSError:
            return b""
        finally:
            os.close(found)


def _lost(text: str) -> list[LostName]:
    lost: list[LostName] = [
        {"name": f"%{number}", "type": "job", "reason": f"running in the background: {what}"[:MAX_WORDS], "cell": None}
        for number, what in re.findall(r"^\[(\d{1,9})\].  ?Running +(.*?)(?: &)?$", text, re.MULTILINE)
    ]
    for number in re.findall(r"^open (\d)$", text, re.MULTILINE):
        lost.append({"name": f"descriptor {number}", "type": "file", "reason": "open file", "cell": None})
    return lost


def _done(execution_id: str, return_code: int, *, interrupted: bool = False) -> Done:
    error: ErrorData = {
        "type": "Interrupted",
        "message": "The cell was stopped.",
        "line": None,
        "traceback": "",
        "hint": "",
    }
    return {
        "event": "done",
        "id": execution_id,
        "status": "interrupted" if interrupted else "error" if return_code else "ok",
        "error": error if interrupted else None,
        "return_code": return_code,
        "notices": [],
        "variables": [],
    }


@cache
def shell() -> str:
    """The path of bash. Raises FileNotFoundError."""
    for place in ("/usr/bin/bash", "/bin/bash", shutil.which("bash")):
        if place and os.access(place, os.X_OK):
            return place
    raise FileNotFoundError("There is no bash on this machine: install the package bash.")


@cache
def script() -> str:
    """The driver as one line, for bash counts the lines of a cell from that of its `eval`."""
    lines = DRIVER.read_text("utf-8").split("\n")
    return " ".join(line.strip() for line in lines if line.strip() and not line.startswith("#"))
