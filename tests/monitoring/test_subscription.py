"""Subscription: one object that the Space starts, serves and ends."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette

from executor import events
from executor.settings import Settings
from monitoring import subscription
from monitoring.exposition import may_scrape
from monitoring.loop import watch_lag
from tests.monitoring.conftest import Watched
from tests.monitoring.script import execution, opened

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


async def get(watched: Watched, path: str = "/metrics", **headers: str) -> httpx.Response:
    transport = httpx.ASGITransport(Starlette(routes=watched.monitoring.routes))
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        return await client.get(path, headers=headers)


async def test_metrics_are_served_as_text_and_as_openmetrics(watched: Watched) -> None:
    watched.say(opened(), *execution(1))
    text = await get(watched)
    assert text.status_code == 200
    assert text.headers["content-type"].startswith("text/plain; version=")
    assert 'interpreter_executions_total{language="python",status="ok"} 1.0' in text.text
    openmetrics = await get(watched, accept=OPENMETRICS)
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


@pytest.mark.parametrize(
    ("access_key", "metrics_key", "given", "allowed"),
    [
        ("", "", None, True),
        ("", "", "anything", True),
        ("door", "", None, True),  # space.access asked for the access key before
        ("door", "", "door", False),  # the parameter is not for the access key: addresses end up in logs
        ("door", "", "", False),
        ("door", "scrape", "scrape", True),
        ("door", "scrape", "scrap", False),
        ("door", "scrape", "", False),
        ("", "scrape", None, False),
        ("", "scrape", "scrape", True),
        ("", "scrape", "\ud800", False),
    ],
)
def test_who_may_scrape(access_key: str, metrics_key: str, given: str | None, allowed: bool) -> None:
    assert may_scrape(Settings(access_key=access_key, metrics_key=metrics_key), given) is allowed


async def test_a_wrong_key_is_refused_counted_and_slowed_down(watch: Callable[..., Watched]) -> None:
    watched = watch(access_key="door", metrics_key="scrape-key")
    assert (await get(watched, "/metrics?key=scrape-key")).status_code == 200
    began = time.monotonic()
    answers = await asyncio.gather(*(get(watched, "/metrics?key=wrong") for _ in range(3)))
    assert [answer.status_code for answer in answers] == [401] * 3
    assert time.monotonic() - began > 1.4
    assert watched.bus.flush()
    assert watched.value("access_refused_total", reason="key") == 3
    assert "wrong" not in watched.out.getvalue()
    assert "scrape-key" not in watched.out.getvalue()


async def test_guessing_in_parallel_gains_nothing(watch: Callable[..., Watched]) -> None:
    watched = watch(metrics_key="scrape-key")
    began = time.monotonic()
    many = [asyncio.create_task(get(watched, "/metrics?key=wrong")) for _ in range(40)]
    answers: Counter[int] = Counter()
    # long enough for those that wait to be answered too, if they wait beside each other
    while time.monotonic() < began + 1.2 or (answers[429] < 24 and time.monotonic() < began + 30):
        await asyncio.sleep(0.1)
        answers = Counter(task.result().status_code for task in many if task.done())
    assert answers[429] == 24
    assert answers[401] <= 1 + (time.monotonic() - began) / 0.5
    assert (await get(watched, "/metrics?key=scrape-key")).status_code == 200, "the right key never waits"
    for task in many:
        task.cancel()
    await asyncio.gather(*many, return_exceptions=True)


async def test_the_loops_lag_is_measured() -> None:
    seen: list[float] = []
    watching = asyncio.create_task(watch_lag(seen.append, interval=0.02))
    await asyncio.sleep(0.1)
    time.sleep(0.3)  # what must not happen in the app
    await asyncio.sleep(0.05)
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching
    assert 0.2 < max(seen) < 5
    assert min(seen) < 0.2


async def test_while_it_runs_it_measures_samples_and_watches(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "INTERVAL", 0.02)
    monkeypatch.setattr(subscription, "MEASURE_INTERVAL", 0.02)
    asked = 0

    async def measure() -> Iterable[events.SessionMeasured]:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise RuntimeError("not yet")
        return [events.SessionMeasured(session_id="session-0", owner="o", memory=5, processes=1, folder_bytes=2)]

    watched.say(opened())
    async with watched.monitoring.running(measure):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            await asyncio.sleep(0.02)
            if watched.value("sessions_memory_bytes") and watched.value("event_loop_lag_seconds_count"):
                break
        assert watched.value("sessions_memory_bytes") == 5
        assert watched.value("event_loop_lag_seconds_count")
        assert len(watched.history.samples()) > 1
    assert any("sessions could not be measured" in line["event"] for line in watched.lines())
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    watched.bus.publish(opened(session_id="after"))
    assert watched.value("sessions_opened_total") == 1, "closed: nothing is heard any more"


async def test_on_the_way_out_all_events_are_heard(watched: Watched) -> None:
    async with watched.monitoring.running():
        watched.bus.publish(opened())
        for number in range(100):
            for event in execution(number):
                watched.bus.publish(event)
    assert len(watched.lines("execution")) == 100
    assert watched.value("executions_total", language="python", status="ok") == 100


def test_the_sessions_disk_and_the_snapshots_disk_are_told_apart(
    watch: Callable[..., Watched], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def usage(folder: Path) -> SimpleNamespace:
        return SimpleNamespace(free=free[folder], total=100)

    work, kept = tmp_path / "work", tmp_path / "kept"
    free = {work: 1, kept: 2, Path(tempfile.gettempdir()): 3}
    monkeypatch.setattr(shutil, "disk_usage", usage)
    for settings, expected in (
        ({"work_dir": str(work), "state_dir": str(kept)}, (1, 2)),
        ({"state_dir": str(kept)}, (3, 2)),
        ({"work_dir": str(work)}, (1, 1)),  # snapshots in a folder of the work's
        ({"work_dir": str(work), "state_dir": str(kept), "snapshots": False}, (1, None)),
    ):
        watched = watch(**settings)
        assert (watched.value("disk_free_bytes"), watched.value("store_disk_free_bytes")) == expected


def test_a_broken_log_does_not_make_the_metrics_deaf(watched: Watched) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("broken")

    watched.handler.say = broken  # type: ignore[method-assign]
    watched.say(opened(), *execution(1))
    assert watched.value("executions_total", language="python", status="ok") == 1
    assert watched.value("event_failures_total") == watched.bus.failed == 2
    assert watched.history.sessions()[0].executions == 1
