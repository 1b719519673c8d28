"""Execution: the cell under way, from the moment it is handed over to its one report."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from typing import Any

from executor.errors import BackendFailed
from executor.languages import channel
from executor.languages.hints import bash_hint, javascript_hint, timeout_hint
from executor.local.cell import Cell, StopReason
from executor.local.crew import NAMES, Crew, Death
from executor.local.guard import Guard
from executor.local.journal import Journal
from executor.local.line import Line
from executor.local.states import States
from executor.local.stream import Stream
from executor.local.transfers import file_json
from executor.local.wire import FrameError
from executor.local.worker import Worker
from executor.local.workspace import Workspace
from executor.results import Language, Status
from executor.sandbox.notifier import explain
from executor.settings import Settings

FLUSH_EVERY = 0.05
"""Seconds between two parts of streamed output: short cells answer in one frame, long ones feel live."""

MAX_FILES_REPORTED = 100
SHOWN_AT_ONCE = 1_000_000
"""Characters of output in one frame, where each takes up to 12 bytes."""

MAX_CHARS_KEPT = 10_000
"""Characters of each text in a report that would not fit a frame otherwise."""

_NEVER = float("inf")


class Execution:
    """At most one cell, and what interpreters print while there is none. Lives in the leader."""

    def __init__(
        self,
        *,
        line: Line,
        workspace: Workspace,
        settings: Settings,
        crew: Crew,
        guard: Guard,
        states: States,
        journal: Journal,
    ) -> None:
        self._line = line
        self._workspace = workspace
        self._settings = settings
        self._crew = crew
        self._guard = guard
        self._states = states
        self._journal = journal
        self._cell: Cell | None = None
        self._numbers: dict[Language, int] = {}
        self._background: dict[tuple[Language, str], bytearray] = {}
        self._next_flush = 0.0

    @property
    def cell(self) -> Cell | None:
        """The cell under way."""
        return self._cell

    def count_on(self, numbers: Mapping[Language, int]) -> None:
        """Number the cells to come from these on, so that no name of a log or in a message means two of them."""
        self._numbers.update(numbers)

    # For the leader's loop

    def next_step(self) -> float:
        """When `step` is due, monotonic seconds."""
        if (cell := self._cell) is None:
            return _NEVER
        due = cell.deadline if cell.hard_at is None else cell.hard_at
        return min(due, self._next_flush) if cell.unshown else due

    def step(self, now: float) -> None:
        """Show what was printed, and keep the clock."""
        if (cell := self._cell) is None:
            return
        if cell.unshown and now >= self._next_flush:
            self._show_output(cell, now)
        if cell.hard_at is not None and now >= cell.hard_at:
            self._hard_stop(cell)
        elif cell.stop is None and now >= cell.deadline:
            self._stop(cell, "timeout")

    # What the server asks for

    def start(self, message: Mapping[str, Any]) -> None:
        """Give a cell to its worker, or let it wait until that is ready."""
        language: Language = message["language"]
        number = self._numbers[language] = self._numbers.get(language, 0) + 1
        cell = Cell(
            id=message["id"],
            language=language,
            code=message["code"],
            number=number,
            timeout=message["timeout"],
            stdout=self._stream("stdout", language, number),
            stderr=self._stream("stderr", language, number),
        )
        self._cell = cell
        self._next_flush = cell.started + FLUSH_EVERY
        self._guard.cell_started()
        self._states.cell_began(language, number)
        cell.notices += self._states.notices()
        try:
            worker = self._crew.worker(language)
        except (OSError, BackendFailed) as error:
            cell.notices.append(f"The {NAMES[language]} process could not be started: {error}")
            self._finish(cell, "crashed", 1)
            return
        # what came before this cell is not its own
        self._cell = None
        self._crew.drain(worker)
        self._cell = cell
        self._give_background(cell)
        if worker.ready and not self._states.is_restoring(worker):
            self._hand_over(worker, cell)

    def interrupt(self, execution_id: str) -> None:
        """Stop the cell, if it is the one that runs."""
        if (cell := self._cell) and cell.id == execution_id and cell.stop is None:
            self._stop(cell, "interrupted")

    def stop_for(self, limit: StopReason) -> bool:
        """Stop the cell as the session is over a limit; False where none runs."""
        if (cell := self._cell) is None:
            return False
        if cell.stop is None:
            self._stop(cell, limit)
            if limit == "memory" and self._cell is cell:
                # every further second may take the machine down: there is no grace for memory
                self._hard_stop(cell)
        return True

    def printed(self, execution_id: str) -> dict[str, str]:
        """What the cell has printed so far; nothing of one that does not run."""
        cell = self._cell
        if cell is None or cell.id != execution_id:
            return {"stdout": "", "stderr": ""}
        return {"stdout": cell.stdout.so_far(), "stderr": cell.stderr.so_far()}

    # What the crew tells

    def on_ready(self, worker: Worker) -> None:
        """A worker has its state, or needs none: give it the cell that waits for it."""
        cell = self._cell
        if cell is None or cell.language != worker.language or cell.sent or self._states.is_restoring(worker):
            return
        if cell.stop is None:
            self._hand_over(worker, cell)

    def on_display(self, worker: Worker, event: channel.Display) -> None:
        """Keep it with the cell, and show it at once, after what was printed before."""
        if (cell := self._own_cell(worker, event["id"])) is None:
            return
        output = {"data": event["data"], "picture": event["picture"], "is_result": event["is_result"]}
        if cell.display(output, limit=self._settings.max_outputs):
            if cell.unshown:
                self._show_output(cell, time.monotonic())
            self._line.tell({"event": "display", "id": cell.id, "output": output})

    def on_done(self, worker: Worker, event: channel.Done) -> None:
        """Report the cell."""
        if cell := self._own_cell(worker, event["id"]):
            self._end_cell(cell, event)

    def on_printed(self, language: Language, stream: str, data: bytes) -> None:
        """It is the cell's, or of background work, whose last part is kept for the next cell."""
        if (cell := self._cell) and cell.language == language:
            cell.feed(stream, data)
            return
        kept = self._background.setdefault((language, stream), bytearray())
        kept += data
        if len(kept) > self._settings.max_output_length:
            del kept[: -self._settings.max_output_length]

    def on_death(self, death: Death) -> None:
        """A worker ended, and with it the cell that it ran."""
        cell = self._cell if self._cell and self._cell.language == death.language else None
        if cell is None:
            if death.ready and death.done is None:
                text = f"The {NAMES[death.language]} process ended between two cells with {death.cause}. {death.kept}\n"
                self.on_printed(death.language, "stderr", text.encode())
        elif not death.ready and cell.stop is None:
            cell.notices.append(f"The {NAMES[death.language]} process did not start ({death.cause}). Try again.")
            self._finish(cell, "crashed", 1)
        elif death.ready and death.done is not None and death.done["id"] == cell.id:
            self._end_cell(cell, death.done)
        else:
            self._on_crash(cell, death)

    def is_stopping(self, language: Language) -> bool:
        """Whether the cell under way is of that language and has been asked to stop."""
        return self._cell is not None and self._cell.language == language and self._cell.stop is not None

    def said(self, language: Language) -> str:
        """What an interpreter has printed with no cell under way, its last characters."""
        text = b"".join(bytes(text) for key, text in self._background.items() if key[0] == language)
        return text.decode("utf-8", "replace")[-2000:].strip()

    # Inside

    def _stream(self, name: str, language: Language, number: int) -> Stream:
        return Stream(
            name,
            self._workspace,
            cap=self._settings.max_output_length,
            log=f"logs/{language}-{number}-{name}.txt",
            max_log=self._settings.max_log_bytes,
        )

    def _hand_over(self, worker: Worker, cell: Cell) -> None:
        cell.sent = True
        # what was lost while the state was taken over, which was after the cell had come
        cell.notices += self._states.notices()
        self._journal.note(cell)
        self._crew.send(worker, worker.speaker.execute(cell.id, cell.code, cell.number))
        cell.code = ""

    def _give_background(self, cell: Cell) -> None:
        for stream in ("stdout", "stderr"):
            if text := self._background.pop((cell.language, stream), None):
                cell.feed(stream, b"[output of background work since the last cell]\n" + bytes(text))
                cell.feed(stream, b"[end of it]\n" if text.endswith(b"\n") else b"\n[end of it]\n")

    def _show_output(self, cell: Cell, now: float) -> None:
        self._next_flush = now + FLUSH_EVERY
        cell.streaming = True
        joined: dict[str, list[str]] = {}
        for stream, text in cell.unshown:
            joined.setdefault(stream, []).append(text)
        cell.unshown.clear()
        for stream, texts in joined.items():
            text = "".join(texts)
            for start in range(0, len(text), SHOWN_AT_ONCE):
                part = text[start : start + SHOWN_AT_ONCE]
                self._line.tell({"event": "output", "id": cell.id, "stream": stream, "text": part})

    def _finish(
        self, cell: Cell, status: Status, return_code: int | None, error: Mapping[str, Any] | None = None
    ) -> None:
        if cell.unshown and cell.streaming:
            # who has followed so far gets the rest the same way
            self._show_output(cell, time.monotonic())
        changes = self._workspace.changes()
        if len(changes) > MAX_FILES_REPORTED:
            cell.notices.append(
                f"{len(changes)} files are new or changed; the first {MAX_FILES_REPORTED} are listed here."
            )
        refused = self._guard.cell_finished()
        if status != "ok":
            # code that went on all the same needs no explanation
            cell.notices.extend(why for kind in refused if (why := explain(kind)) not in cell.notices)
        cell.limits.extend(kind for kind in refused if kind in ("processes", "threads"))
        self._cell = None
        result = cell.report(
            status=status,
            return_code=return_code,
            error=error,
            files=[file_json(info) for info in changes[:MAX_FILES_REPORTED]],
            refused=refused,
        )
        message = {"event": "finished", "id": cell.id, "limits": cell.limits, "replaced": cell.replaced}
        try:
            self._line.tell({**message, "result": result})
        except FrameError:
            # whatever made it too long, it costs this report's contents, never the session
            self._line.tell({**message, "result": _without_bulk(result)})

    def _stop(self, cell: Cell, reason: StopReason) -> None:
        """The soft stop; the hard one follows after the grace."""
        cell.stop = reason
        cell.hard_at = time.monotonic() + self._settings.interrupt_grace
        worker = self._crew.known(cell.language)
        if not cell.sent and self._states.stop_loading(cell.language, starved=reason == "memory"):
            # the worker's death ends the cell: only then is it known what becomes of its state
            cell.hard_at = _NEVER
        elif worker is None or not cell.sent:
            self._conclude_stop(cell, None, kept=True)
        elif (message := worker.speaker.interrupt()) is not None:
            self._crew.send(worker, message)
        else:
            worker.signal_stop()

    def _hard_stop(self, cell: Cell) -> None:
        cell.hard_at = _NEVER
        self._crew.kill(cell.language)

    def _conclude_stop(self, cell: Cell, error: Mapping[str, Any] | None, *, kept: bool) -> None:
        assert cell.stop is not None
        self._guard.kill_since(cell.started)
        what = {
            "timeout": f"The code was stopped after {cell.timeout:g} s, its time limit.",
            "interrupted": "The code was interrupted.",
        }.get(cell.stop) or self._guard.why(cell.stop)
        cell.notices.insert(0, what + (" Variables are kept." if kept else ""))
        if cell.stop == "timeout":
            hint = timeout_hint(cell.timeout, self._settings.max_execution_timeout)
            if error is None:
                cell.notices.append(hint)
            else:
                error = {**error, "hint": hint}
        if cell.stop != "interrupted":
            cell.limits.append(cell.stop)
        self._finish(cell, cell.stop, 130 if kept else 137, error)

    def _own_cell(self, worker: Worker, execution_id: str) -> Cell | None:
        """One outstanding id: whatever names another one is stale or forged, and is ignored."""
        cell = self._cell
        return cell if cell and cell.id == execution_id and cell.language == worker.language and cell.sent else None

    def _end_cell(self, cell: Cell, done: channel.Done) -> None:
        cell.notices.extend(done["notices"])
        cell.variables = done["variables"]
        error = done["error"]
        if cell.stop:
            self._conclude_stop(cell, error, kept=True)
            return
        if error and cell.language == "javascript":
            error["hint"] = javascript_hint(error["message"], error["traceback"])
        elif cell.language == "bash" and done["status"] == "error":
            # bash knows no error but its exit status
            cell.notices.extend(filter(None, [bash_hint(cell.stderr.latest().decode("utf-8", "replace"))]))
        self._finish(cell, done["status"], done["return_code"], error)

    def _on_crash(self, cell: Cell, death: Death) -> None:
        name = NAMES[death.language]
        if not cell.sent:
            # it had its state to take over, still
            cell.notices += self._states.notices()
        if cell.stop:
            cell.replaced = f"{cell.stop}: {death.cause}"
            if cell.sent:
                cell.notices.append(f"The {name} process did not stop by itself and was ended. {death.kept}")
            self._conclude_stop(cell, None, kept=False)
            return
        cell.replaced = death.cause
        code = 128 - death.code if death.code < 0 else death.code
        cell.notices.append(f"The {name} process ended with {death.cause}. {death.kept}")
        if death.code == -signal.SIGXCPU:
            cell.limits.append("cpu")
        if death.code == -signal.SIGABRT and b"heap out of memory" in cell.stderr.latest():
            # V8's own limit, which lies below the session's
            cell.limits.append("memory")
            self._finish(cell, "memory", code)
            return
        self._finish(cell, "crashed", code)


def _without_bulk(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result that fits a frame whatever is in it: the ends of what was printed, its error in short, a notice."""
    error = result["error"]
    return {
        **result,
        "stdout": result["stdout"][-MAX_CHARS_KEPT:],
        "stderr": result["stderr"][-MAX_CHARS_KEPT:],
        "outputs": [],
        "files": [],
        "error": error
        and {key: value[:MAX_CHARS_KEPT] if isinstance(value, str) else value for key, value in error.items()},
        "truncated": True,
        "notices": [
            "The result was too large to be sent: displayed values, the list of files, notices and variables are left "
            f"out, and of each stream all but the last {MAX_CHARS_KEPT:,} characters."
        ],
        "variables": [],
    }
