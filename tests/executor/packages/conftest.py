"""Indexes of our own, so that most tests need no network."""

import pytest

from tests.executor.packages.indexes import Registry


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes packages from, and from nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def registry(monkeypatch):
    """An npm registry on loopback."""
    running = Registry()
    monkeypatch.setenv("npm_config_registry", running.url)
    yield running
    running.close()
