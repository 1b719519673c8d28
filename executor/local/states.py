"""States: what the interpreters of one session have saved, and who still has to take it over.

A state is good from its trial on. It serves twice: a snapshot of the folder carries it to wherever the session goes on,
and where an interpreter dies under the guest's code, the next one starts from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from executor.errors import Busy, ExecutorError
from executor.languages import channel
from executor.languages.bash import Bash
from executor.languages.channel import ProtocolError, StateHead
from executor.local.crew import NAMES, Crew
from executor.local.guard import Guard
from executor.local.loop import Loop
from executor.local.saving import Saving, State, read_head, remove, state_path
from executor.local.worker import Program, Worker
from executor.local.workspace import Workspace
from executor.results import LANGUAGES, Language

RESTORE_SECONDS = 30.0
"""Seconds in which a worker must have taken over its state."""

SHOWN = 8
"""Names in a sentence."""

_STARVED = "The session had no memory left while they were loaded."

_NEVER = float("inf")

Reply = Callable[[list[State] | ExecutorError], None]


@dataclass(slots=True)
class _Loading:
    """A worker's taking over of its state: until when, monotonic seconds, and what the folder looked like before.

    `ended` says why it is being ended, empty while it is not; `again`, whether that alone does not cost the state.
    """

    language: Language
    until: float
    folder: int | None
    ended: str = ""
    again: bool = False


class States:
    """Lives in the leader, which tells it of cells, workers and deaths."""

    def __init__(
        self,
        *,
        workspace: Workspace,
        crew: Crew,
        guard: Guard,
        loop: Loop,
        programs: dict[Language, Program],
        running: Callable[[], Language | None],
    ) -> None:
        """`running` is the language of the cell under way."""
        self._workspace = workspace
        self._crew = crew
        self._guard = guard
        self._loop = loop
        self._programs = programs
        self._running = running
        self._good: dict[Language, State] = {}
        # all that was saved, which every answer has: an earlier one may not have reached the server
        self._told: dict[Language, State] = {}
        # whether anything could act between cells when all was saved last, and whose variables that may have changed
        self._rested = True
        self._restless: set[Language] = set()
        self._changed: dict[Language, int] = {}
        self._saving: Saving | None = None
        # by pid of a worker
        self._restoring: dict[int, _Loading] = {}
        # the languages whose good state was being loaded once already when the cell that waited for it was stopped
        self._stopped: set[Language] = set()
        self._awaited: tuple[Language, Reply] | None = None
        self._notices: list[str] = []

    # For the leader's loop

    def next_step(self) -> float:
        """When `step` is due, monotonic seconds."""
        due = min((loading.until for loading in self._restoring.values()), default=_NEVER)
        return due if self._saving is None or self._saving.over else min(due, self._saving.next)

    def step(self, now: float) -> None:
        """Go on with what is being saved, and end who does not come to an end with taking over a state."""
        if self._saving is not None:
            self._saving.step(now)
        for loading in self._restoring.values():
            if now >= loading.until:
                self._end(loading, f"Loading them took over {RESTORE_SECONDS:g} s.", again=False)

    def stop_loading(self, language: Language, *, starved: bool) -> bool:
        """End the worker that takes the language's state over, as the cell that waits for it is stopped; False where
        none does. What it has loaded by now may be anything, and a state that hangs must not hold the session.

        The state is kept for one more try, unless it `starved` the session. Its death adds to the notices what became
        of it.
        """
        loading = next((loading for loading in self._restoring.values() if loading.language == language), None)
        if loading is None:
            return False
        if starved:
            self._end(loading, _STARVED, again=False)
        else:
            self._end(loading, "Loading them was stopped for the second time.", again=language not in self._stopped)
        return True

    def _end(self, loading: _Loading, why: str, *, again: bool) -> None:
        loading.until = _NEVER
        if not loading.ended:
            loading.ended, loading.again = why, again
        self._crew.kill(loading.language)

    def reaped(self, pids: set[int]) -> None:
        """Children of the leader's have ended."""
        if self._saving is not None:
            self._saving.reaped(pids)

    def give_way(self) -> bool:
        """Stop what is being saved, as it may be what passed a limit; False where nothing is."""
        if self._saving is None or self._saving.over:
            return False
        self._saving.stop("The session had no memory left to save it.")
        return True

    # Saving

    def cell_began(self, language: Language, number: int) -> None:
        """From now on the language's state may differ from what was saved."""
        self._changed[language] = number

    def rests(self) -> bool:
        """Whether nothing has acted since all was saved, nor can before the next cell."""
        return self._rested and not self._restless and not self._acting() and not self._guard.background()

    def _acting(self) -> set[Language]:
        """The languages whose variables may change between cells, as of now."""
        # a shell has jobs, which are processes of their own; Node has an event loop; a Python that waits for its next
        # cell takes no signals, so no timer wakes it
        languages: set[Language] = {"javascript"} if self._crew.known("javascript") else set()
        python = self._crew.known("python")
        if python is not None and not self._guard.only_answers(python.pid):
            languages.add("python")
        return languages

    def save(self, limit: int, final: bool, reply: Reply) -> None:
        """Save what may have changed since it was saved last: by cells, and the `final` time also between them; `reply`
        hears of it. Raises Busy."""
        if self._running() is not None or (self._saving is not None and not self._saving.over):
            raise Busy("The session is at work. Try again when its code has ended.")
        changed, self._changed = self._changed, {}
        again: dict[Language, State] = {}
        if final:
            # one that could not be kept is not tried again without a cell
            restless = (self._acting() | self._restless) - changed.keys()
            again = {language: self._good[language] for language in restless if language in self._good}
        try:
            self._save(changed, again, limit, reply)
        except BaseException:
            self._changed = {**changed, **self._changed}
            raise

    def _save(self, changed: dict[Language, int], again: dict[Language, State], limit: int, reply: Reply) -> None:
        acting = self._acting()
        rested = not acting and not self._guard.background()
        self._rested = False
        self._restless |= acting
        order: list[tuple[Language, int]] = []
        files: list[State] = []
        for language, number in changed.items():
            worker = self._crew.known(language)
            if worker is not None and self.is_restoring(worker):
                # it has run no cell yet: what it takes over is saved, and a load that hangs must not cost that
                self._changed[language] = number
                continue
            if language == "bash" or (worker is not None and worker.ready):
                order.append((language, number))
            elif language not in self._good:
                files.append(State(language, None, f"The {NAMES[language]} process had ended.", cell=number))
        order += [(language, state.cell) for language, state in again.items()]

        def done(states: list[State] | ExecutorError) -> None:
            if isinstance(states, ExecutorError):
                # what was not saved is to be saved, still
                self._changed = {**changed, **self._changed}
                reply(states)
                return
            for state in (*states, *files):
                self._keep(state)
                self._told[state.language] = state
                if state.language not in acting:
                    self._restless.discard(state.language)
            self._rested = rested
            reply(list(self._told.values()))

        self._saving = Saving(
            order,
            limit=limit,
            workspace=self._workspace,
            crew=self._crew,
            guard=self._guard,
            loop=self._loop,
            programs=self._programs,
            busy=lambda language: self._running() == language,
            done=done,
            again=again,
        )
        self._saving.step(time.monotonic())

    def _keep(self, state: State) -> None:
        self._stopped.discard(state.language)
        if state.head is not None and state.language != "bash":
            self._good[state.language] = state
        else:
            self._good.pop(state.language, None)

    def _shell_head(self) -> StateHead | None:
        shell = self._programs["bash"].interpreter()
        return shell.state() if isinstance(shell, Bash) else None

    # Restoring

    def restore(self, languages: Sequence[Language], numbers: Mapping[Language, int], reply: Reply) -> None:
        """Take over what the folder's state files hold: Python's now, others' when they are first used."""
        states = []
        for language in languages:
            if language not in LANGUAGES:
                continue
            if language == "bash":
                states.append(State(language, self._shell_head()))
                continue
            try:
                head = read_head(self._workspace, state_path(language))
            except ProtocolError as error:
                head, problem = None, f"Its state file is damaged: {error}"
            else:
                problem = "" if head else "Its state file is gone."
            state = State(language, head, problem, cell=numbers.get(language, 0))
            states.append(state)
            self._keep(state)
        if "python" not in self._good:
            reply(states)
            return

        def answer(found: list[State] | ExecutorError) -> None:
            assert isinstance(found, list)
            reply([*found, *(state for state in states if state.language != "python")])

        self._awaited = "python", answer
        worker = self._crew.known("python")
        if worker is not None and worker.ready:
            self.on_ready(worker)

    def on_ready(self, worker: Worker) -> bool:
        """A worker can take its first cell; False where it first has a state to take over."""
        state = self._good.get(worker.language)
        if state is None:
            return True
        order = worker.speaker.restore(str(worker.pid), state_path(worker.language))
        if order is None:
            return True
        folder = self._workspace.fingerprint()
        self._restoring[worker.pid] = _Loading(worker.language, time.monotonic() + RESTORE_SECONDS, folder)
        self._crew.send(worker, order)
        return False

    def is_restoring(self, worker: Worker) -> bool:
        """Whether a worker has a state to take over before it can take a cell."""
        return worker.pid in self._restoring

    def on_restored(self, worker: Worker, event: channel.Restored) -> None:
        """A worker has taken over its state, or failed to."""
        loading = self._restoring.get(worker.pid)
        if loading is None or loading.ended:
            # one that is being ended is of no more use; its death tells what became of the state
            return
        del self._restoring[worker.pid]
        self._note_loading(loading.folder)
        if event["id"] != str(worker.pid):
            return
        if event["problem"]:
            self._fail(worker.language, event["problem"])
            return
        state = self._good[worker.language]
        assert state.head is not None
        known = {lost["name"] for lost in state.head.lost}
        more = [lost for lost in event["lost"] if lost["name"] not in known]
        head = StateHead(tuple(event["names"]), (*state.head.lost, *more), "", state.head.versions)
        taken = self._good[worker.language] = State(worker.language, head, cell=state.cell)
        taken.at = state.at
        self._stopped.discard(worker.language)
        if more and not self._is_awaited(worker.language):
            self._notices.append(f"{NAMES[worker.language]} could not take over all of its state; {_lost(more)}")
        self._answer(taken)

    def died(self, worker_pid: int, language: Language, *, starve: bool) -> str:
        """A worker ended: a sentence on what the next one starts from, empty where that is nothing.

        `starve`: it was its variables that took too much memory, so they must not come back.
        """
        if (loading := self._restoring.pop(worker_pid, None)) is not None:
            self._note_loading(loading.folder)
            if loading.again and not starve:
                self._stopped.add(language)
                self._notices.append(
                    f"The variables of {NAMES[language]} were being loaded then: they are kept and loaded once more."
                )
            else:
                ended = _STARVED if starve else loading.ended
                self._fail(language, ended or "The process ended while it took over its state.")
            return ""
        if starve:
            self._drop(language)
        state = self._good.get(language)
        if state is None or state.head is None:
            return ""
        after = f"as they were after cell {state.cell}" if state.cell else "as the snapshot has them"
        seconds = time.monotonic() - state.at
        said = f"Its variables come back {after}, saved {seconds:.0f} s ago: {_names(state.head.names)}."
        if state.head.lost:
            lost = _lost(state.head.lost)
            said += f" {lost[:1].upper()}{lost[1:]}"
        return said

    def _note_loading(self, before: int | None) -> None:
        """Loading a state runs the guest's code, too, which may go on, or have changed files: `before` is the folder's
        fingerprint."""
        acting = self._acting()
        untouched = before is not None and self._workspace.fingerprint() == before
        self._rested = self._rested and untouched and not acting and not self._guard.background()
        self._restless |= acting

    def notices(self) -> list[str]:
        """What the next cell has to be told."""
        told, self._notices = self._notices, []
        return told

    def _fail(self, language: Language, problem: str) -> None:
        self._drop(language)
        if self._is_awaited(language):
            self._answer(State(language, None, problem))
        else:
            self._notices.append(f"The variables of {NAMES[language]} could not be brought back: {problem}")

    def _drop(self, language: Language) -> None:
        self._stopped.discard(language)
        self._told.pop(language, None)
        if self._good.pop(language, None) is not None:
            remove(self._workspace, state_path(language))

    def _is_awaited(self, language: Language) -> bool:
        return self._awaited is not None and self._awaited[0] == language

    def _answer(self, state: State) -> None:
        if self._awaited is not None and self._awaited[0] == state.language:
            (_, reply), self._awaited = self._awaited, None
            reply([state])


def _names(names: Sequence[str]) -> str:
    if not names:
        return "none"
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"


def _lost(lost: Sequence[channel.LostName]) -> str:
    told = [f"{name['name']} ({name['reason']})" for name in lost[:SHOWN]]
    more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
    return f"lost: {', '.join(told)}{more}."
