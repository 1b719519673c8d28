"""Health: which build it is, said alike by /healthz and by the metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

import monitoring
from executor.settings import Settings
from space import health, server


@pytest.fixture
def build_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The file that a bundle has beside its entry; it is read anew."""
    monkeypatch.setattr(health, "BUILD_FILE", tmp_path / "BUILD")
    health.build_id.cache_clear()
    yield tmp_path / "BUILD"
    health.build_id.cache_clear()


@pytest.mark.parametrize(("written", "build"), [("2026-11-29.1a2b3c\n", "2026-11-29.1a2b3c"), ("\n", ""), (None, "")])
def test_the_metrics_name_the_build_of_a_bundle(
    build_file: Path, written: str | None, build: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if written is not None:
        build_file.write_text(written)
    subscribe = Mock()
    monkeypatch.setattr(monitoring, "configure", Mock())
    monkeypatch.setattr(monitoring, "subscribe", subscribe)
    server.Space(Settings(), Mock(), {})
    assert subscribe.call_args.kwargs == {"build": build}
    assert health.build_id() == (build or "source")
