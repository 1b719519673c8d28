"""A real Prometheus scrapes the real route through a wall that asks for a token, and its answers equal the script's."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from executor import events
from executor.results import LANGUAGES, STATUSES
from monitoring.prometheus import configuration
from tests.monitoring.conftest import Watched
from tests.monitoring.prometheus_server import needs_prometheus, running
from tests.monitoring.script import called, closed, execution, finished, opened, started, violated

TOKEN = "hf_" + "a" * 20


class Wall:
    """Answers 404 to whoever brings no token, as the Hub's proxy does for a private Space."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(b"authorization") != f"Bearer {TOKEN}".encode():
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await self._app(scope, receive, send)


@contextmanager
def served(watched: Watched) -> Iterator[str]:
    app = Wall(Starlette(routes=watched.monitoring.routes))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def script(watched: Watched, first: int) -> Counter[tuple[str, ...]]:
    """Executions of all languages and outcomes, violations, cancels, limits; returns its own counts."""
    counts: Counter[tuple[str, ...]] = Counter()
    number = first
    for language in LANGUAGES:
        session = f"session-{language}-{first}"
        watched.say(opened(session_id=session))
        counts["opened",] += 1
        for times, status in enumerate(status for status in STATUSES if status != "running"):
            for _ in range(times + 1):
                number += 1
                watched.say(*execution(number, session_id=session, language=language, status=status))
                counts["execution", language, status] += 1
        watched.say(finished(number + 1000, language=language, status="timeout", limits=("timeout",), seconds=31.0))
        counts["execution", language, "timeout"] += 1
        counts["limit", "timeout"] += 1
        for layer in ("policy", "sandbox"):
            watched.say(violated(language=language, rule=f"{layer}-rule", layer=layer))  # type: ignore[arg-type]
            counts["violation", language, layer] += 1
        watched.say(called(outcome="cancelled", request_id=f"c{number}"), closed(session_id=session, reason="expired"))
        counts["cancelled",] += 1
    watched.say(
        opened(session_id=f"stays-{first}"), started(number + 5000, session_id=f"stays-{first}", language="bash")
    )
    counts["opened",] += 1
    return counts


@needs_prometheus
def test_promql_answers_equal_the_scripts_own_counts(watch: Callable[..., Watched], tmp_path: Path) -> None:
    watched = watch(access_key="door-key", metrics_key="scrape key&more")
    counts = script(watched, 0)
    with served(watched) as address:
        assert httpx.get(f"{address}/metrics").status_code == 404, "the wall stands"
        config = configuration(address, metrics_key="scrape key&more", interval=1)
        with running(config, tmp_path, hf_token=TOKEN) as prometheus:
            prometheus.wait(lambda: prometheus.number("up") == 1)
            counts += script(watched, 10_000)
            total = sum(n for key, n in counts.items() if key[0] == "execution")
            prometheus.look()
            assert prometheus.number("sum(interpreter_executions_total)") == total
            for language in LANGUAGES:
                for status in STATUSES:
                    if status != "running":
                        query = f'interpreter_executions_total{{language="{language}",status="{status}"}}'
                        assert prometheus.number(query) == counts["execution", language, status], query
                assert prometheus.number(f'sum(interpreter_violations_total{{language="{language}"}})') == 4
            assert prometheus.number('interpreter_violations_total{language="bash",rule="sandbox-rule"}') == 2
            assert prometheus.number('interpreter_limits_hit_total{limit="timeout"}') == counts["limit", "timeout"]
            assert prometheus.number('sum(interpreter_tool_calls_total{outcome="cancelled"})') == counts["cancelled",]
            assert prometheus.number("interpreter_sessions_opened_total") == counts["opened",]
            assert prometheus.number("interpreter_sessions_live") == 2
            assert prometheus.number('interpreter_executions_in_flight{language="bash"}') == 2
            within = 'sum(interpreter_execution_seconds_bucket{le="0.005"})'
            assert prometheus.number(within) == total - counts["limit", "timeout"]


@needs_prometheus
def test_a_scraper_with_a_wrong_token_or_key_gets_nothing(watch: Callable[..., Watched], tmp_path: Path) -> None:
    watched = watch(metrics_key="scrape-key")
    with served(watched) as address:
        scrapers = {"401": ("wrong", TOKEN), "404": ("scrape-key", "hf_other")}
        with ExitStack() as both:
            started = {}
            for status, (key, token) in scrapers.items():
                (tmp_path / status).mkdir()
                config = configuration(address, metrics_key=key, interval=1)
                started[status] = both.enter_context(running(config, tmp_path / status, hf_token=token))
            for status, prometheus in started.items():
                # up is 0 also after a scrape that took too long
                prometheus.wait(
                    lambda prometheus=prometheus, status=status: (
                        prometheus.number("up") == 0 and status in prometheus.targets()[0]["lastError"]
                    )
                )


@needs_prometheus
@pytest.mark.timeout(180)
def test_alerts_without_delay_fire_for_real_causes(watch: Callable[..., Watched], tmp_path: Path) -> None:
    watched = watch()
    with (
        served(watched) as address,
        running(configuration(address, interval=1), tmp_path, hf_token=TOKEN) as prometheus,
    ):
        prometheus.wait(lambda: prometheus.number("job:interpreter_faults:sum") == 0)
        time.sleep(2)  # some evaluations before the cause
        assert prometheus.firing() == set()
        watched.say(
            events.Fault(where="zygote", detail="it died"),
            events.BackendStarted(seconds=1.0, restart=True),
            *(violated(layer="sandbox", rule="connect") for _ in range(80)),
            *(events.AccessRefused(reason="key", path="/") for _ in range(60)),
            *(
                events.WorkerReplaced(session_id="s", owner="o", language="python", cause="signal 9 (killed)")
                for _ in range(20)
            ),
        )
        expected = {
            "InterpreterFaults",
            "InterpreterBackendRestarted",
            "InterpreterViolationsBurst",
            "InterpreterSandboxRefusals",
            "InterpreterAccessTried",
            "InterpreterWorkersDying",
        }
        prometheus.wait(lambda: prometheus.firing() == expected, seconds=60)
