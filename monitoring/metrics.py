"""Metrics: every instrument with its meaning, and which event moves it."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, get_args, get_type_hints

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from executor import events
from executor.results import LANGUAGES, STATUSES
from executor.sandbox.report import LEVELS
from executor.settings import Settings
from monitoring.labels import OTHER, Bounded, cause_of_death
from monitoring.live import Live
from monitoring.readings import Reading, Readings

PREFIX = "interpreter"
MIB = 1024 * 1024
DURATIONS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Upper bounds in seconds: 1 ms to the 10 minutes that a call may last by default."""
AGES = (1, 10, 60, 300, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400, 604_800, 2_592_000)
"""Upper bounds in seconds of the age at which sessions end: up to the 30 days for which unused ones are kept."""


class Metrics:
    """All metrics of one process, in a registry of their own.

    `update` is called with every event, on one thread; a scrape reads from any other. Label values come from closed
    sets or pass `Bounded`: the number of time series has an upper bound whatever callers and guests do.
    """

    def __init__(self, settings: Settings, live: Live, *, build: str = "") -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry(auto_describe=True)
        self.labels: dict[str, tuple[str, ...]] = {}
        self._declare()
        self._say_what_is_known(settings)
        self.build_info.labels(build or _version(), platform.python_version()).set(1)
        self.read(_live_readings(live))
        ProcessCollector(registry=self.registry)
        self._handlers: dict[type[events.Event], Callable[[Any], None]] = {
            events.BackendStarted: self._backend_started,
            events.SandboxProbed: self._sandbox_probed,
            events.SessionOpened: self._session_opened,
            events.SessionClosed: self._session_closed,
            events.ExecutionStarted: self._execution_started,
            events.ExecutionFinished: self._execution_finished,
            events.ViolationFound: self._violation_found,
            events.WorkerReplaced: self._worker_replaced,
            events.FileTransferred: self._file_transferred,
            events.PackagesInstalled: self._packages_installed,
            events.QuotaRefused: self._quota_refused,
            events.SessionParked: self._session_parked,
            events.SessionRestored: self._session_restored,
            events.SnapshotTaken: self._snapshot_taken,
            events.SnapshotFailed: lambda _: self.snapshots_failed.inc(),
            events.Fault: self._fault,
            events.ToolCalled: self._tool_called,
            events.ConnectionChanged: self._connection_changed,
            events.AccessRefused: self._access_refused,
        }

    def update(self, event: events.Event) -> None:
        """Count `event`; one of an unknown kind is counted nowhere."""
        if handler := self._handlers.get(type(event)):
            handler(event)

    def read(self, readings: Iterable[Reading]) -> None:
        """Give these, too, whenever the metrics are asked for."""
        kept = list(readings)
        self.labels.update((reading.name, (reading.label,)) for reading in kept if reading.label)
        self.registry.register(Readings(kept))

    # what there is

    def _declare(self) -> None:
        counter, gauge, histogram = self._counter, self._gauge, self._histogram
        self.executions = counter(
            "executions", "Executions that ended, by how; `blocked`: refused by the policy.", "language", "status"
        )
        self.execution_seconds = histogram("execution_seconds", "Time from start to end of executions.", "language")
        self.queue_seconds = histogram(
            "queue_seconds", "Time that executions waited for their session to be free and for a turn among all cells."
        )
        self.output_chars = counter("output_chars", "Characters that executions printed and that were kept.", "stream")
        self.outputs_cut = counter("outputs_cut", "Executions of whose output something was cut.", "language")
        self.pictures = counter("pictures", "Pictures that executions displayed.")
        self.picture_bytes = counter(
            "picture_bytes", "Bytes of the pictures that executions displayed, padded to three."
        )
        self.files_changed = counter("files_changed", "Files that executions made or changed.")
        self.limits_hit = counter("limits_hit", "Limits that executions ran into.", "limit")
        self.violations = counter(
            "violations",
            "Code refused by the policy, and acts refused by a kernel layer of the sandbox.",
            "language",
            "rule",
            "layer",
        )
        self.workers_replaced = counter(
            "workers_replaced",
            "Workers that died and were replaced, with the variables they held.",
            "language",
            "cause",
        )
        self.sessions_opened = counter("sessions_opened", "Sessions created.")
        self.sessions_ended = counter("sessions_ended", "Sessions that ended, by why.", "reason")
        self.session_create_seconds = histogram("session_create_seconds", "Time that it took to create sessions.")
        self.session_age_seconds = histogram("session_age_seconds", "Age at which sessions ended.", buckets=AGES)
        self.backend_starts = counter("backend_starts", "Starts of the zygote.")
        self.backend_restarts = counter("backend_restarts", "Starts of the zygote because the former one died.")
        self.backend_start_seconds = gauge("backend_start_seconds", "Time that the zygote's last start took.")
        self.sandbox_level = gauge(
            "sandbox_level", "1 for the isolation reached on this host, 0 for the rest.", "level"
        )
        self.sandbox_rank = gauge("sandbox_rank", "Isolation reached on this host: 0 weak, 1 strong, 2 full.")
        self.sandbox_layer = gauge(
            "sandbox_layer", "1 for each layer of the sandbox that is on, 0 for one off.", "layer"
        )
        self.tool_calls = counter("tool_calls", "Tool calls that were answered.", "tool", "transport", "outcome")
        self.tool_call_seconds = histogram("tool_call_seconds", "Time that tool calls took, waiting included.", "tool")
        self.unidentified_calls = counter("unidentified_calls", "Tool calls without headers that say who calls.")
        self.connections = gauge("connections", "MCP connections open now.", "transport")
        self.connections_opened = counter("connections_opened", "MCP connections opened.", "transport")
        self.access_refused = counter("access_refused", "Requests turned away at the door.", "reason")
        self.file_transfers = counter("file_transfers", "Files taken in, given out, moved or deleted.", "action")
        self.file_transfer_bytes = counter(
            "file_transfer_bytes", "Bytes of files taken in, given out, moved or deleted.", "action"
        )
        self.packages = counter("packages", "Packages asked for, by what came of them.", "language", "outcome")
        self.package_install_seconds = histogram("package_install_seconds", "Duration of package installs.", "language")
        self.quota_refusals = counter(
            "quota_refusals", "Calls refused because a share or the machine was used up, by what.", "kind"
        )
        self.sessions_parked = counter("sessions_parked", "Sessions whose processes ended, snapshot kept.", "reason")
        self.sessions_restored = counter("sessions_restored", "Parked sessions that were woken.")
        self.session_restore_seconds = histogram("session_restore_seconds", "Time until a parked session was awake.")
        self.snapshots = counter("snapshots", "Snapshots written.")
        self.snapshots_failed = counter("snapshots_failed", "Snapshots that could not be written.")
        self.snapshot_seconds = histogram("snapshot_seconds", "Time that a snapshot took, its trial included.")
        self.snapshot_bytes = counter("snapshot_bytes", "Bytes that snapshots wrote to the store.")
        self.names_lost = counter("names_lost", "Variables and files that a snapshot could not keep.")
        self.faults = counter("faults", "Failures of ours, by where.", "where")
        self.loop_lag_seconds = histogram("event_loop_lag_seconds", "How late the event loop woke a sleeping task.")
        self.build_info = gauge("build_info", "1, with the versions in the labels.", "version", "python")
        self._rules, self._limits, self._causes = Bounded(), Bounded(), Bounded(most=50)
        self._tools, self._wheres, self._layers = Bounded(), Bounded(), Bounded(most=50)

    def _say_what_is_known(self, settings: Settings) -> None:
        """Constant gauges, and zeros for the series that are known: `increase` misses the birth of a series."""
        caps: tuple[tuple[str, str, float], ...] = (
            ("sessions_max", "MAX_SESSIONS: sessions that may live at once.", settings.max_sessions),
            ("execution_timeout_seconds", "EXECUTION_TIMEOUT: for a call that names none.", settings.execution_timeout),
            ("session_memory_limit_bytes", "SESSION_MEMORY_MB of one session.", settings.session_memory_mb * MIB),
            ("session_folder_limit_bytes", "SESSION_DISK_MB of one session.", settings.session_disk_mb * MIB),
        )
        for name, help, value in caps:
            self._gauge(name, help).set(value)
        for language in LANGUAGES:
            self.execution_seconds.labels(language)
            self.outputs_cut.labels(language)
            for status in STATUSES:
                if status != "running":
                    self.executions.labels(language, status)
            for layer in ("policy", "sandbox"):
                self.violations.labels(language, OTHER, layer)
            self.workers_replaced.labels(language, OTHER)
        for stream in ("stdout", "stderr"):
            self.output_chars.labels(stream)
        for instrument, kind, name in (
            (self.sessions_ended, events.SessionClosed, "reason"),
            (self.access_refused, events.AccessRefused, "reason"),
            (self.quota_refusals, events.QuotaRefused, "kind"),
            (self.sessions_parked, events.SessionParked, "reason"),
            (self.file_transfers, events.FileTransferred, "action"),
            (self.file_transfer_bytes, events.FileTransferred, "action"),
            (self.connections_opened, events.ConnectionChanged, "transport"),
            (self.connections, events.ConnectionChanged, "transport"),
        ):
            for value in get_args(get_type_hints(kind)[name]):
                instrument.labels(value)
        for language in get_args(get_type_hints(events.PackagesInstalled)["language"]):
            self.package_install_seconds.labels(language)
            for outcome in ("installed", "refused"):
                self.packages.labels(language, outcome)
        self.faults.labels(OTHER)
        self.limits_hit.labels(OTHER)

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        self.labels[f"{PREFIX}_{name}"] = labels
        return Counter(f"{PREFIX}_{name}", help, labels, registry=self.registry)

    def _gauge(self, name: str, help: str, *labels: str) -> Gauge:
        self.labels[f"{PREFIX}_{name}"] = labels
        return Gauge(f"{PREFIX}_{name}", help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, *labels: str, buckets: Sequence[float] = DURATIONS) -> Histogram:
        self.labels[f"{PREFIX}_{name}"] = labels
        return Histogram(f"{PREFIX}_{name}", help, labels, buckets=buckets, registry=self.registry)

    # what happens

    def _backend_started(self, event: events.BackendStarted) -> None:
        self.backend_starts.inc()
        self.backend_start_seconds.set(event.seconds)
        if event.restart:
            self.backend_restarts.inc()

    def _sandbox_probed(self, event: events.SandboxProbed) -> None:
        for level in LEVELS:
            self.sandbox_level.labels(level).set(level == event.level)
        ranks: dict[str, int] = {level: rank for rank, level in enumerate(reversed(LEVELS))}
        self.sandbox_rank.set(ranks.get(event.level, 0))
        for layer, (on, _) in event.layers.items():
            self.sandbox_layer.labels(self._layers(layer)).set(on)

    def _session_opened(self, event: events.SessionOpened) -> None:
        self.sessions_opened.inc()
        self.session_create_seconds.observe(event.seconds)

    def _session_closed(self, event: events.SessionClosed) -> None:
        self.sessions_ended.labels(event.reason).inc()
        self.session_age_seconds.observe(event.age)

    def _execution_started(self, event: events.ExecutionStarted) -> None:
        self.queue_seconds.observe(event.queued)

    def _execution_finished(self, event: events.ExecutionFinished) -> None:
        self.executions.labels(event.language, event.status).inc()
        self.execution_seconds.labels(event.language).observe(event.seconds)
        if event.stdout_chars:
            self.output_chars.labels("stdout").inc(event.stdout_chars)
        if event.stderr_chars:
            self.output_chars.labels("stderr").inc(event.stderr_chars)
        if event.truncated:
            self.outputs_cut.labels(event.language).inc()
        if event.pictures:
            self.pictures.inc(event.pictures)
            self.picture_bytes.inc(event.picture_chars // 4 * 3)  # base64: four characters for three bytes
        if event.files:
            self.files_changed.inc(event.files)
        for limit in event.limits:
            self.limits_hit.labels(self._limits(limit)).inc()

    def _violation_found(self, event: events.ViolationFound) -> None:
        found = event.violation
        self.violations.labels(event.language, self._rules(found.rule), found.layer).inc()

    def _worker_replaced(self, event: events.WorkerReplaced) -> None:
        self.workers_replaced.labels(event.language, self._causes(cause_of_death(event.cause))).inc()

    def _file_transferred(self, event: events.FileTransferred) -> None:
        self.file_transfers.labels(event.action).inc()
        self.file_transfer_bytes.labels(event.action).inc(event.size)

    def _packages_installed(self, event: events.PackagesInstalled) -> None:
        self.packages.labels(event.language, "installed").inc(event.installed)
        self.packages.labels(event.language, "refused").inc(event.refused)
        self.package_install_seconds.labels(event.language).observe(event.seconds)

    def _quota_refused(self, event: events.QuotaRefused) -> None:
        self.quota_refusals.labels(event.kind).inc()

    def _session_parked(self, event: events.SessionParked) -> None:
        self.sessions_parked.labels(event.reason).inc()

    def _session_restored(self, event: events.SessionRestored) -> None:
        self.sessions_restored.inc()
        self.session_restore_seconds.observe(event.seconds)

    def _snapshot_taken(self, event: events.SnapshotTaken) -> None:
        self.snapshots.inc()
        self.snapshot_seconds.observe(event.seconds)
        self.snapshot_bytes.inc(event.written)
        self.names_lost.inc(event.lost)

    def _fault(self, event: events.Fault) -> None:
        self.faults.labels(self._wheres(event.where)).inc()

    def _tool_called(self, event: events.ToolCalled) -> None:
        tool = self._tools(event.tool)
        self.tool_calls.labels(tool, event.transport, event.outcome).inc()
        self.tool_call_seconds.labels(tool).observe(event.seconds)
        if not event.identified:
            self.unidentified_calls.inc()

    def _connection_changed(self, event: events.ConnectionChanged) -> None:
        if event.open:
            self.connections_opened.labels(event.transport).inc()
            self.connections.labels(event.transport).inc()
        else:
            self.connections.labels(event.transport).dec()

    def _access_refused(self, event: events.AccessRefused) -> None:
        self.access_refused.labels(event.reason).inc()


def _version() -> str:
    try:
        return version("librechat-code-interpreter")
    except PackageNotFoundError:
        return "source"  # on a Space the code lies beside its entry and is not installed


def _live_readings(live: Live) -> Iterator[Reading]:
    def in_flight() -> dict[str, float]:
        at_work = [execution.language for execution in live.executions()]
        return {language: float(at_work.count(language)) for language in LANGUAGES}

    def total(name: str) -> Callable[[], float]:
        return lambda: float(sum(getattr(session, name) for session in live.sessions()))

    def largest(name: str) -> Callable[[], float]:
        return lambda: float(max((getattr(session, name) for session in live.sessions()), default=0))

    def oldest() -> float:
        return max((time.time() - session.opened_at for session in live.sessions()), default=0.0)

    def longest() -> float:
        return max((time.time() - execution.started_at for execution in live.executions()), default=0.0)

    for name, help, read in (
        ("sessions_live", "Sessions there are now.", lambda: float(len(live.sessions()))),
        ("session_oldest_seconds", "Age of the oldest session there is.", oldest),
        ("execution_longest_seconds", "Time that the longest execution now at work has taken so far.", longest),
        ("sessions_memory_bytes", "Memory of all sessions, as last measured.", total("memory")),
        ("session_memory_max_bytes", "Memory of the largest session, as last measured.", largest("memory")),
        ("sessions_processes", "Processes of all sessions, as last measured.", total("processes")),
        ("sessions_folder_bytes", "Size of all sessions' folders, as last measured.", total("folder_bytes")),
        ("session_folder_max_bytes", "Size of the largest folder, as last measured.", largest("folder_bytes")),
    ):
        yield Reading(f"{PREFIX}_{name}", help, read)
    yield Reading(f"{PREFIX}_executions_in_flight", "Executions at work now.", in_flight, label="language")
