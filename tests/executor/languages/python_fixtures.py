"""Fixtures for the Python tests: one zygote for all of them, a worker for each module or test."""

import pytest
from python_worker import Zygote


@pytest.fixture(scope="session")
def zygote(tmp_path_factory):
    started = Zygote(tmp_path_factory.mktemp("zygote"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def shared(zygote, tmp_path_factory):
    """A worker that the tests of a module share, as the cells of a session do."""
    worker = zygote.fork(tmp_path_factory.mktemp("session"))
    yield worker
    worker.close()


@pytest.fixture
def worker(zygote, tmp_path):
    """A worker of the test's own."""
    forked = zygote.fork(tmp_path)
    yield forked
    forked.close()
