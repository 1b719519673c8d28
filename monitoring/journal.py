"""Journal: one log line for each event that an operator would want to find again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from executor import events
from monitoring.live import Live
from monitoring.logs import LineHandler, timestamp
from monitoring.pseudonyms import Pseudonyms

OWN_FAULT = frozenset({"crashed", "lost"})
"""Ways for an execution to end that point at us or at an attack, not at an ordinary mistake in its code."""

# Lines a minute that are printed of one kind (and one owner, where there is one); the rest is counted.
_EXECUTIONS = 300
_CHANGES = 60
_COMPLAINTS = 10

_CALLS_REMEMBERED = 1000

Line = dict[str, Any]
Flooding = tuple[tuple[str, ...], str, int]


class Journal:
    """Writes events as lines. Called on the one thread that delivers events, before `live` hears of them.

    An execution is one line when it ends; the call that carried it gets a line of its own only where that has something
    to add (it ran no code, was cancelled, or failed on our side). Owners and sessions appear as pseudonyms, code as its
    length and SHA-256.
    """

    def __init__(self, handler: LineHandler, live: Live, pseudonyms: Pseudonyms, *, log_code: bool = False) -> None:
        self._handler = handler
        self._live = live
        self._of = pseudonyms.of
        self._log_code = log_code
        self._told: OrderedDict[str, bool] = OrderedDict()
        self._writers: dict[type[events.Event], Callable[[Any], tuple[str, Line, Flooding | None]]] = {
            events.BackendStarted: self._backend,
            events.SandboxProbed: self._sandbox,
            events.SessionOpened: self._opened,
            events.SessionClosed: self._closed,
            events.SessionParked: self._parked,
            events.SessionRestored: self._restored,
            events.SnapshotFailed: self._not_saved,
            events.ExecutionFinished: self._execution,
            events.ViolationFound: self._violation,
            events.WorkerReplaced: self._worker,
            events.FileTransferred: self._file,
            events.PackagesInstalled: self._packages,
            events.QuotaRefused: self._quota,
            events.Fault: self._fault,
            events.ToolCalled: self._call,
            events.ConnectionChanged: self._connection,
            events.AccessRefused: self._refused,
        }

    def update(self, event: events.Event) -> None:
        """Write the line for `event`, if it is of a kind that has one and it adds something."""
        writer = self._writers.get(type(event))
        if writer is None or self._told_already(event):
            return
        level, fields, flood = writer(event)
        line: Line = {"at": timestamp(event.at), "event": fields.pop("event")}
        if event.request_id:
            line["request_id"] = event.request_id
        if event.tool:
            line["tool"] = event.tool
        line.update((key, value) for key, value in fields.items() if value not in (None, "", 0, (), False))
        self._handler.say(level, line, flood=flood)

    def _told_already(self, event: events.Event) -> bool:
        if isinstance(event, events.ExecutionFinished) and event.request_id:
            self._told[event.request_id] = True
            if len(self._told) > _CALLS_REMEMBERED:
                self._told.popitem(last=False)
        if not isinstance(event, events.ToolCalled):
            return False
        return self._told.pop(event.request_id, False) and event.outcome in ("ok", "error")

    def _who(self, event: Any) -> Line:
        return {"session": self._of(event.session_id or ""), "owner": self._of(event.owner)}

    def _backend(self, event: events.BackendStarted) -> tuple[str, Line, Flooding | None]:
        fields = {"event": "backend", "seconds": round(event.seconds, 3), "restart": event.restart}
        return "error" if event.restart else "info", fields, None

    def _sandbox(self, event: events.SandboxProbed) -> tuple[str, Line, Flooding | None]:
        missing = [f"{name}: {why}" for name, (on, why) in event.layers.items() if not on]
        fields = {"event": "sandbox", "sandbox": event.level, "missing": "; ".join(missing)}
        return "warning" if event.level == "weak" else "info", fields, None

    def _opened(self, event: events.SessionOpened) -> tuple[str, Line, Flooding | None]:
        fields = {"event": "session opened", **self._who(event), "seconds": round(event.seconds, 4)}
        return "info", fields, _flood(event, fields, _CHANGES)

    def _closed(self, event: events.SessionClosed) -> tuple[str, Line, Flooding | None]:
        fields = {"event": "session closed", **self._who(event), "reason": event.reason, "age": round(event.age, 1)}
        return "warning" if event.reason == "failed" else "info", fields, _flood(event, fields, _CHANGES)

    def _parked(self, event: events.SessionParked) -> tuple[str, Line, Flooding | None]:
        fields = {"event": "session parked", **self._who(event), "reason": event.reason}
        return "warning" if event.reason == "failed" else "info", fields, _flood(event, fields, _CHANGES)

    def _restored(self, event: events.SessionRestored) -> tuple[str, Line, Flooding | None]:
        fields = {
            "event": "session restored",
            **self._who(event),
            "seconds": round(event.seconds, 4),
            "lost": event.lost,
        }
        return "info", fields, _flood(event, fields, _CHANGES)

    def _not_saved(self, event: events.SnapshotFailed) -> tuple[str, Line, Flooding | None]:
        fields = {"event": "session not saved", **self._who(event), "detail": event.detail}
        return "error", fields, _flood(event, fields, _COMPLAINTS)

    def _execution(self, event: events.ExecutionFinished) -> tuple[str, Line, Flooding | None]:
        started = self._live.execution(event.execution_id)
        fields = {
            "event": "execution",
            "execution_id": event.execution_id,
            **self._who(event),
            "language": event.language,
            "status": event.status,
            "seconds": round(event.seconds, 4),
            "queued": round(started.queued, 3) if started else None,
            "return_code": event.return_code,
            "stdout_chars": event.stdout_chars,
            "stderr_chars": event.stderr_chars,
            "cut": event.truncated,
            "pictures": event.pictures,
            "picture_bytes": event.picture_chars // 4 * 3,
            "files": event.files,
            "limits": ",".join(event.limits),
            "code_chars": started.code_chars if started else None,
            "code_sha256": started.code_sha256 if started else None,
            "code": started.code if started and self._log_code else None,
        }
        return "warning" if event.status in OWN_FAULT else "info", fields, _flood(event, fields, _EXECUTIONS)

    def _violation(self, event: events.ViolationFound) -> tuple[str, Line, Flooding | None]:
        found = event.violation
        fields = {
            "event": "violation",
            "execution_id": event.execution_id,
            **self._who(event),
            "language": event.language,
            "rule": found.rule,
            "layer": found.layer,
            "line": found.line,
            # a policy's sentence quotes the code
            "message": found.message if self._log_code else None,
        }
        return "warning", fields, _flood(event, fields, _COMPLAINTS, found.rule, found.layer)

    def _worker(self, event: events.WorkerReplaced) -> tuple[str, Line, Flooding | None]:
        fields = {"event": "worker replaced", **self._who(event), "language": event.language, "cause": event.cause}
        return "warning", fields, _flood(event, fields, _COMPLAINTS, event.language, event.cause)

    def _file(self, event: events.FileTransferred) -> tuple[str, Line, Flooding | None]:
        fields = {"event": "file", **self._who(event), "action": event.action, "bytes": event.size}
        return "info", fields, _flood(event, fields, _CHANGES, event.action)

    def _packages(self, event: events.PackagesInstalled) -> tuple[str, Line, Flooding | None]:
        fields = {
            "event": "packages",
            **self._who(event),
            "language": event.language,
            "installed": event.installed,
            "refused": event.refused,
            "bytes": event.size,
            "seconds": round(event.seconds, 3),
        }
        return "info", fields, _flood(event, fields, _CHANGES, event.language)

    def _quota(self, event: events.QuotaRefused) -> tuple[str, Line, Flooding | None]:
        fields: Line = {"event": "quota refused", "owner": self._of(event.owner), "kind": event.kind}
        return "warning", fields, _flood(event, fields, _COMPLAINTS, event.kind)

    def _fault(self, event: events.Fault) -> tuple[str, Line, Flooding | None]:
        detail = event.detail
        for session in self._live.sessions():
            detail = detail.replace(session.session_id, self._of(session.session_id))
        fields = {"event": "fault", "where": event.where, "detail": detail}
        # each names a session that was not saved, and comes once: there are never more than MAX_SESSIONS
        flood = None if event.where == "shutdown" else _flood(event, fields, _COMPLAINTS, event.where)
        return "error", fields, flood

    def _call(self, event: events.ToolCalled) -> tuple[str, Line, Flooding | None]:
        fields = {
            "event": "call",
            **self._who(event),
            "transport": event.transport,
            "outcome": event.outcome,
            "unidentified": not event.identified,
            "seconds": round(event.seconds, 4),
        }
        level = "error" if event.outcome == "fault" else "info"
        return level, fields, _flood(event, fields, _CHANGES, event.tool[:64], event.outcome)

    def _connection(self, event: events.ConnectionChanged) -> tuple[str, Line, Flooding | None]:
        name = "connection opened" if event.open else "connection closed"
        fields: Line = {"event": name, "transport": event.transport}
        return "info", fields, _flood(event, fields, _CHANGES)

    def _refused(self, event: events.AccessRefused) -> tuple[str, Line, Flooding | None]:
        fields: Line = {"event": "access refused", "reason": event.reason, "path": event.path[:200]}
        return "warning", fields, _flood(event, fields, _COMPLAINTS, event.reason)


def _flood(event: events.Event, fields: Line, limit: int, *more: str) -> Flooding:
    """Lines of one kind, one owner and the same `more` count as the same line."""
    key = (fields["event"], fields.get("owner", ""), *more)
    return key, " ".join(part for part in key if part), limit
