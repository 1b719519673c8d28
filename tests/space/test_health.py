"""Health: which build it is, said alike by /healthz and by the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import httpx
import pytest
from starlette.applications import Starlette

import monitoring
from executor.settings import Settings
from space import build, health, server


@pytest.fixture
def build_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file that a bundle has beside its entry; it is read anew."""
    monkeypatch.setattr(build, "BUILD_FILE", tmp_path / "BUILD")
    build.build_id.cache_clear()
    yield tmp_path / "BUILD"
    build.build_id.cache_clear()


@pytest.mark.parametrize(("written", "named"), [("2026-11-29.1a2b3c\n", "2026-11-29.1a2b3c"), ("\n", ""), (None, "")])
def test_the_metrics_name_the_build_of_a_bundle(
    build_file: Path, written: str | None, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if written is not None:
        build_file.write_text(written)
    subscribe = Mock()
    monkeypatch.setattr(monitoring, "configure", Mock())
    monkeypatch.setattr(monitoring, "subscribe", subscribe)
    server.Space(Settings(), Mock(), {})
    assert subscribe.call_args.kwargs == {"build": named}
    assert build.build_id() == (named or "source")


async def test_a_process_names_the_settings_that_it_was_started_with(monkeypatch: pytest.MonkeyPatch) -> None:
    toolbox = Mock(**{"executor.sandbox.level": "full", "executor.sandbox.layers": {}})
    app = Starlette(routes=[health.health_route(toolbox)])
    named = []
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://space") as client:
        for note in ('{"salt": "1"}', '{"salt": "2"}', ""):
            monkeypatch.setenv(build.NOTE, note)
            named.append((await client.get("/healthz")).json()["settings"])
    assert named == [build.settings_id('{"salt": "1"}'), build.settings_id('{"salt": "2"}'), ""]
    assert len(set(named)) == 3
