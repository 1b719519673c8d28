"""A real Prometheus for tests: started on a configuration, asked through its API."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from monitoring.prometheus import RULES

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is missing: apt-get install prometheus brings it"
)

START_SECONDS = 30.0


class Prometheus:
    """A running server."""

    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=address, timeout=10)
        self._at: dict[str, str] = {}

    def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """(labels, value) of each series that the instant query gives."""
        answer = self._get("/api/v1/query", query=query, **self._at)
        return [(series["metric"], float(series["value"][1])) for series in answer["result"]]

    def number(self, query: str) -> float | None:
        """The one value that the query gives, None where it gives none."""
        answer = self.ask(query)
        assert len(answer) <= 1, answer
        return answer[0][1] if answer else None

    def targets(self) -> list[dict[str, Any]]:
        """The targets that it scrapes, with their last error."""
        return list(self._get("/api/v1/targets")["activeTargets"])

    def firing(self) -> set[str]:
        """Names of the alerts that fire now."""
        return {a["labels"]["alertname"] for a in self._get("/api/v1/alerts")["alerts"] if a["state"] == "firing"}

    def wait(self, ready: Callable[[], object], seconds: float = 30.0) -> None:
        """Wait until `ready` says so; a failure after `seconds`."""
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, f"not ready after {seconds} s; targets: {self.targets()}"
            time.sleep(0.2)

    def look(self) -> None:
        """Wait for a good scrape that begins from now on; every answer is as of it from then on.

        Without it the answers may be of an older scrape than what happened last, or of none: one that fails takes all
        that was known out of later answers.
        """
        self._at = {}
        now, seen = time.time(), 0.0

        def fresh() -> bool:
            nonlocal seen
            seen = self.number("timestamp(up) * up") or 0.0
            return seen > now

        self.wait(fresh)
        self._at = {"time": f"{seen:.3f}"}

    def _get(self, path: str, **params: str) -> dict[str, Any]:
        answer = self._client.get(path, params=params)
        answer.raise_for_status()
        data: dict[str, Any] = answer.json()["data"]
        return data


@contextmanager
def running(configuration: str, folder: Path, **files: str) -> Iterator[Prometheus]:
    """A Prometheus with this configuration, in `folder` with our rules and `files` (name without dashes: content)."""
    (folder / "prometheus.yml").write_text(configuration)
    shutil.copytree(RULES, folder / "rules")
    for name, content in files.items():
        (folder / name.replace("_", "-")).write_text(content)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [
        "prometheus",
        "--config.file=prometheus.yml",
        "--storage.tsdb.path=data",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([*command, "--log.level=warn"], cwd=folder, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                assert process.poll() is None, (folder / "prometheus.log").read_text()
                assert time.monotonic() < deadline, "Prometheus did not start"
                try:
                    if httpx.get(f"http://{address}/-/ready", timeout=2).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                time.sleep(0.1)
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()
            process.wait(timeout=20)
