"""One Space for all end-to-end tests: starting it takes seconds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.running import TRANSPORTS, RunningSpace


@pytest.fixture(scope="package")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    """The Space as it runs with default settings."""
    running = RunningSpace.start(tmp_path_factory.mktemp("space"))
    yield running
    running.stop()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    """Each of the two transports."""
    return str(request.param)
