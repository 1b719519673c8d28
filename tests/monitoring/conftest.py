"""Logging is one thing of the whole process: what a test configures is taken back after it."""

from __future__ import annotations

import copy
import io
import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
import uvicorn.config

import monitoring
from executor.events import Bus, Event
from executor.settings import Settings
from monitoring import Monitoring

SALT = "a salt for tests"


@pytest.fixture
def clean_logging() -> Iterator[None]:
    """Root handlers, levels, hooks, uvicorn's and structlog's configuration are afterwards as they were."""
    root = logging.getLogger()
    handlers, level, hook, thread_hook = root.handlers[:], root.level, sys.excepthook, threading.excepthook
    uvicorn_config = copy.deepcopy(uvicorn.config.LOGGING_CONFIG)
    yield
    logging.captureWarnings(False)
    root.handlers[:], sys.excepthook, threading.excepthook = handlers, hook, thread_hook
    root.setLevel(level)
    uvicorn.config.LOGGING_CONFIG.clear()
    uvicorn.config.LOGGING_CONFIG.update(uvicorn_config)
    structlog.reset_defaults()


class Watched:
    """A bus that is monitored, with what was printed."""

    def __init__(self, settings: Settings) -> None:
        self.bus = Bus(linger=0)
        self.out = io.StringIO()
        self.handler = monitoring.configure(settings, environ={}, stream=self.out)
        self.monitoring: Monitoring = monitoring.subscribe(self.bus, settings, self.handler)
        self.metrics = self.monitoring.metrics
        self.history = self.monitoring.history
        self.of = self.monitoring.pseudonyms.of

    def say(self, *events: Event) -> None:
        """Publish, and wait until all of it was heard."""
        for event in events:
            self.bus.publish(event)
        assert self.bus.flush()

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """The lines printed so far, or those of one event."""
        lines = [json.loads(line) for line in self.out.getvalue().splitlines()]
        return [line for line in lines if event in (None, line["event"])]

    def value(self, name: str, **labels: str) -> float | None:
        """A sample of the registry; `name` without the prefix."""
        value: float | None = self.metrics.registry.get_sample_value(f"interpreter_{name}", labels)
        return value


@pytest.fixture
def watch(clean_logging: None) -> Iterator[Callable[..., Watched]]:
    """Makes monitored buses; keyword arguments are settings."""
    made: list[Watched] = []

    def make(**settings: Any) -> Watched:
        made.append(Watched(Settings(**{"log_format": "json", "log_salt": SALT, **settings})))
        return made[-1]

    yield make
    for watched in made:
        watched.monitoring.close()


@pytest.fixture
def watched(watch: Callable[..., Watched]) -> Watched:
    """A monitored bus with ordinary settings."""
    return watch()
