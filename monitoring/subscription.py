"""Subscription: everything that listens to one bus, wired up for the Space."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.routing import Route

from executor import events
from executor.events import Bus, SessionMeasured
from executor.settings import Settings
from monitoring.exposition import metrics_route
from monitoring.history import INTERVAL, History
from monitoring.host import Host
from monitoring.journal import Journal
from monitoring.live import Live
from monitoring.logs import LineHandler, configure
from monitoring.loop import watch_lag
from monitoring.metrics import PREFIX, Metrics
from monitoring.pseudonyms import Pseudonyms
from monitoring.readings import Reading

Measure = Callable[[], Awaitable[Iterable[SessionMeasured]]]
"""Asks for what each session uses now."""

MEASURE_INTERVAL = 15.0
"""Seconds between two measurements of sessions; also the longest that one may take."""

_log = logging.getLogger(__name__)


class Monitoring:
    """What listens to a bus: `journal` (log lines), `metrics`, `history` (for the operator's tab).

    One subscriber on one thread feeds them all, each behind a guard of its own: where one of them raises, the others
    still hear of the event, and the bus counts the failure.
    """

    def __init__(self, bus: Bus, settings: Settings, handler: LineHandler, *, build: str = "") -> None:
        self._bus = bus
        self._handler = handler
        self.pseudonyms = Pseudonyms(settings.log_salt)
        live = Live(keep_code=settings.log_code)
        self.journal = Journal(handler, live, self.pseudonyms, log_code=settings.log_code)
        self.metrics = Metrics(settings, live, build=build)
        self.history = History(live, self.pseudonyms)
        self.metrics.read(Host(*_disks(settings)).readings(PREFIX))
        self.metrics.read(own_readings(bus, handler))
        self.routes: list[Route] = [metrics_route(self.metrics.registry, settings, bus)]
        # `live` last: when an execution ends, the journal asks it how that began
        self._listeners = (self.journal.update, self.metrics.update, self.history.update, live.update)
        self._unsubscribe = bus.subscribe(self._hear)

    def close(self) -> None:
        """Deliver what waits, tell what was held back, and stop listening. Blocks up to 5 s; idempotent."""
        self._unsubscribe()
        self._handler.sweep()

    @asynccontextmanager
    async def running(self, measure: Measure | None = None) -> AsyncIterator[None]:
        """While inside: watch the event loop's lag, take a sample for the history every 10 s, and where `measure` is
        given, ask it every 15 s and publish what it says. On the way out everything ends and `close` is called."""
        tasks = [
            asyncio.create_task(watch_lag(self.metrics.loop_lag_seconds.observe), name="event-loop-lag"),
            asyncio.create_task(self._sample(), name="monitoring-history"),
        ]
        if measure is not None:
            tasks.append(asyncio.create_task(self._measure(measure), name="monitoring-measure"))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.to_thread(self.close)

    def _hear(self, event: events.Event) -> None:
        failure: Exception | None = None
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:
                # one listener's bug must not make the others deaf
                failure = error
        if failure is not None:
            raise failure

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            self.history.sample()
            self._handler.sweep()

    async def _measure(self, measure: Measure) -> None:
        while True:
            try:
                async with asyncio.timeout(MEASURE_INTERVAL):
                    for measured in await measure():
                        self._bus.publish(measured)
            except Exception:
                # a backend in trouble says so itself; here only the gauges go stale
                _log.exception("sessions could not be measured")
            await asyncio.sleep(MEASURE_INTERVAL)


def _disks(settings: Settings) -> tuple[Path, Path | None]:
    """A folder on the sessions' disk, and one on that of their snapshots, which may be a volume."""
    # not `settings.work_path()`, which makes a folder of its own with each call
    sessions = Path(settings.work_dir or tempfile.gettempdir()).expanduser()
    if not settings.snapshots:
        return sessions, None
    return sessions, Path(settings.state_dir).expanduser() if settings.state_dir else sessions


def own_readings(bus: Bus, handler: LineHandler | None) -> Iterator[Reading]:
    """What monitoring lost or held back; the log's part is zero without a `handler`."""

    def of_handler(name: str) -> Callable[[], float]:
        return lambda: float(getattr(handler, name, 0))

    for name, help, read in (
        ("events_dropped", "Events thrown away because a subscriber was too slow.", lambda: float(bus.dropped)),
        ("event_failures", "Events on which a subscriber raised an error.", lambda: float(bus.failed)),
        ("log_lines_held_back", "Log lines not printed because they repeat.", of_handler("held_back")),
        ("log_lines_broken", "Log lines that could not be rendered.", of_handler("unrenderable")),
    ):
        yield Reading(f"{PREFIX}_{name}", help, read, "counter")

    def lines() -> dict[str, float]:
        return {"info": 0, "warning": 0, "error": 0, **(handler.lines if handler else {})}

    yield Reading(f"{PREFIX}_log_lines", "Log lines printed.", lines, "counter", "level")


def subscribe(bus: Bus, settings: Settings, handler: LineHandler | None = None, *, build: str = "") -> Monitoring:
    """Start monitoring: from now on every event on `bus` becomes log lines, metrics and history.

    The Space's entry does this, in this order:

        handler = monitoring.configure(settings)                    # before anything else logs
        watched = monitoring.subscribe(executor.bus, settings, handler)
        routes = [*watched.routes, ...]                             # GET /metrics, before Gradio's own routes

        @asynccontextmanager
        async def lifespan(app):                                    # given to demo.launch(app_kwargs={"lifespan": ...})
            async with watched.running(measure=...):                # measure: async () -> Iterable[SessionMeasured]
                async with executor:                                # ends first, so that its last events are heard
                    yield

    `handler` is what `configure` returned; without one it is called here. `build` names the running code. Give
    `watched.history` to the operator's tab. Tool calls are to be answered within
    `executor.events.during(request_id, tool)`: then an execution's log line says which call it belongs to, and an
    ordinary call costs no line of its own.
    """
    return Monitoring(bus, settings, handler if handler is not None else configure(settings), build=build)
