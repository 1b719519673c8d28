"""The running Space behind the wall of a private one: a real Prometheus' answers equal what real clients were told."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import ClientSession
from mcp.types import CancelledNotification, CancelledNotificationParams, ClientNotification

from monitoring.prometheus import configuration
from monitoring.pseudonyms import Pseudonyms
from monitoring.reader import parse, wanted
from monitoring.reference import instruments
from tests.e2e.gateway import TOKEN, gateway
from tests.e2e.running import RunningSpace, client, data_of, identity
from tests.monitoring.prometheus_server import Prometheus, needs_prometheus, running
from tests.monitoring.test_prometheus import check

SALT = "a salt of the operator"
TOOLS = {
    "python": ("execute_python_code", "code"),
    "javascript": ("execute_javascript_code", "code"),
    "bash": ("execute_bash_command", "command"),
}
MIX: list[tuple[str, str, float, str]] = [
    *[("python", f"print({n})", 30, "ok") for n in range(5)],
    *[("javascript", f"console.log({n})", 30, "ok") for n in range(4)],
    *[("bash", f"echo {n}", 30, "ok") for n in range(3)],
    ("python", "1/0", 30, "error"),
    ("javascript", "throw new Error('no')", 30, "error"),
    ("bash", "exit 3", 30, "error"),
    ("python", "while True: pass", 1, "timeout"),
    ("bash", "sleep 30", 1, "timeout"),
    ("python", "import requests; requests.get('http://10.0.0.1')", 30, "blocked"),
    ("bash", "curl http://10.0.0.1", 30, "blocked"),
    ("python", "import os\nos._exit(3)", 30, "crashed"),
    ("python", "print('x' * 50_000)", 30, "ok"),
    ("python", "import matplotlib.pyplot as plt; plt.plot([1, 2]); plt.show()", 30, "ok"),
    ("python", "import socket\ntry:\n    socket.socket()\nexcept OSError:\n    pass", 30, "ok"),
]


class Script:
    """Plays the mix and counts what it was answered."""

    def __init__(self) -> None:
        self.statuses: Counter[tuple[str, str]] = Counter()
        self.violations: Counter[tuple[str, str]] = Counter()
        self.calls: Counter[tuple[str, str]] = Counter()
        self.pictures = self.cut = 0

    async def play(self, session: ClientSession) -> None:
        for language, code, timeout, status in MIX:
            await self.run(session, language, code, timeout, status)

    async def run(self, session: ClientSession, language: str, code: str, timeout: float, status: str) -> None:
        tool, argument = TOOLS[language]
        result = await session.call_tool(tool, {argument: code, "timeout": timeout})
        data = data_of(result)
        assert data["status"] == status, data
        self.answered(language, data)
        self.calls[tool, "error" if result.isError else "ok"] += 1

    def answered(self, language: str, data: dict[str, Any]) -> None:
        self.statuses[language, data["status"]] += 1
        for violation in data["violations"]:
            self.violations[language, violation["layer"]] += 1
        self.pictures += sum(bool(output["picture"]) for output in data["outputs"])
        self.cut += data["truncated"]

    async def cancel(self, space: RunningSpace, session: ClientSession) -> None:
        """What LibreChat sends when its user presses Stop."""
        request = session._request_id
        arguments = {"command": "sleep 59.75", "timeout": 60}
        call = asyncio.create_task(session.call_tool("execute_bash_command", arguments))
        await self.until(lambda: space.running("59.75"))
        note = CancelledNotification(
            method="notifications/cancelled", params=CancelledNotificationParams(requestId=request, reason="stopped")
        )
        await session.send_notification(ClientNotification(note))
        self.calls["execute_bash_command", "cancelled"] += 1
        self.statuses["bash", "interrupted"] += 1
        await self.until(lambda: not space.running("59.75"))
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    async def until(self, there: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(there):
                await asyncio.sleep(0.05)


@needs_prometheus
@pytest.mark.timeout(240)
async def test_promql_answers_of_the_running_space_equal_the_clients_own_counts(tmp_path: Path) -> None:
    space = await asyncio.to_thread(
        RunningSpace.start, tmp_path, ACCESS_KEY="door-key", METRICS_KEY="scrape-key", LOG_SALT=SALT
    )
    try:
        async with gateway(int(space.url.rsplit(":", 1)[1])) as wall:
            folder = tmp_path / "prometheus"
            folder.mkdir()
            config = configuration(wall.url, metrics_key="scrape-key", interval=1)
            with running(config, folder, hf_token=TOKEN) as prometheus:
                await asyncio.to_thread(prometheus.wait, lambda: prometheus.number("up") == 1)
                script = Script()
                keys = {"Authorization": f"Bearer {TOKEN}", "X-Access-Key": "door-key"}
                async with client(wall.url, "sse", {**keys, **identity("alice-in-person", "c1")}) as session:
                    await script.play(session)
                    await script.cancel(space, session)
                async with client(wall.url, "http", {**keys, **identity("bob-in-person", "c2")}) as session:
                    await script.run(session, "python", "print('hello')", 30, "ok")
                await asyncio.to_thread(agree, prometheus, script)
            async with httpx.AsyncClient(headers={"Authorization": f"Bearer {TOKEN}"}) as http:
                page = await http.get(f"{wall.url}/metrics?key=scrape-key")
                assert (await http.get(f"{wall.url}/metrics")).status_code == 401
                assert (await http.get(f"{wall.url}/metrics?key=door-key")).status_code == 401
        assert check("check", "metrics", input=page.text) == ""
        for family in instruments().registry.collect():
            assert f"# HELP {family.name}" in page.text, f"{family.name} is in the documents and not in the app"
        check_log(space, script)
    finally:
        await asyncio.to_thread(space.stop)


def agree(prometheus: Prometheus, script: Script) -> None:
    """Wait for the scrape that has all, then compare everything."""
    total = sum(script.statuses.values())
    prometheus.wait(lambda: prometheus.number("sum(interpreter_executions_total)") == total)
    made = sum(script.calls.values())
    prometheus.wait(lambda: prometheus.number("sum(interpreter_tool_calls_total)") == made)
    prometheus.look()
    counted = {
        (labels["language"], labels["status"]): value
        for labels, value in prometheus.ask("interpreter_executions_total > 0")
    }
    assert counted == script.statuses
    violations = prometheus.ask("sum by (language, layer) (interpreter_violations_total) > 0")
    assert {(labels["language"], labels["layer"]): value for labels, value in violations} == script.violations
    assert {layer for _, layer in script.violations} == {"policy", "sandbox"}
    calls = prometheus.ask("sum by (tool, outcome) (interpreter_tool_calls_total) > 0")
    assert {(labels["tool"], labels["outcome"]): value for labels, value in calls} == script.calls
    assert prometheus.number("interpreter_pictures_total") == script.pictures == 1
    assert prometheus.number("sum(interpreter_outputs_cut_total)") == script.cut == 1
    assert prometheus.number('interpreter_limits_hit_total{limit="timeout"}') == 2
    assert prometheus.number("sum(interpreter_workers_replaced_total)") >= 1  # type: ignore[operator]
    assert prometheus.number("interpreter_sessions_opened_total") == prometheus.number("interpreter_sessions_live") == 2
    assert prometheus.number("sum(interpreter_executions_in_flight)") == 0
    assert prometheus.number("sum(interpreter_sandbox_level)") == 1
    assert prometheus.number("sum(interpreter_execution_seconds_count)") == total
    assert prometheus.number("interpreter_events_dropped_total + interpreter_event_failures_total") == 0
    assert prometheus.number("sum(interpreter_faults_total)") == 0
    assert prometheus.number("sum(interpreter_event_loop_lag_seconds_count)") > 0  # type: ignore[operator]


def check_log(space: RunningSpace, script: Script) -> None:
    """One line an execution, with whose it was, and none of the secrets."""
    text = space.log.read_text()
    records = [parse(line) for line in text.splitlines()]
    executions = [record for record in records if record["event"] == "execution"]
    assert Counter((record["language"], record["status"]) for record in executions) == script.statuses
    alice = Pseudonyms(SALT).of("alice-in-person")
    assert sum(record["owner"] == alice for record in executions) == len(executions) - 1
    assert all(record["request_id"] and record["tool"] and record["code_sha256"] for record in executions)
    calls = [record for record in records if record["event"] == "call"]
    assert [record["outcome"] for record in calls] == ["cancelled"], "the others have said it all in their execution"
    assert {record["event"] for record in records if wanted(record, errors=True)} >= {"violation", "worker replaced"}
    for hidden in (TOKEN, "door-key", "scrape-key", SALT, "alice-in-person", "matplotlib", "curl http"):
        assert hidden not in text, hidden
    ours = [line for line in text.splitlines() if line.startswith("{")]
    assert all(isinstance(json.loads(line), dict) for line in ours)
    assert len(ours) == len(text.splitlines()), [line for line in text.splitlines() if not line.startswith("{")][:3]
