"""When a request is worth making again, and how long to wait before."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import httpx2
from huggingface_hub.errors import HfHubHTTPError

RETRIED = {408, 425, 429, 500, 502, 503, 504}
LONGEST_ASKED = 120.0
"""Seconds that we wait at most where the Hub asks for a pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How patient we are; all in seconds. `sleep` is what waits, so that tests can wind the clock on."""

    tries: int = 4
    first_pause: float = 1.0
    longest_pause: float = 12.0
    request_timeout: float = 60.0
    poll: float = 3.0
    start_timeout: float = 1800.0
    settle: float = 30.0
    sleep: Callable[[float], None] = time.sleep


def lost(error: Exception) -> bool:
    """Whether the request may have been carried out although we got no good answer."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500
    return isinstance(error, (httpx2.HTTPError, ValueError))


def may_retry(error: Exception) -> bool:
    """Whether the same request may succeed when it is made again."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in RETRIED
    return isinstance(error, (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError))


def pause_before(attempt: int, error: Exception, pace: Pace) -> float:
    """Seconds to wait after `attempt` (from 0) failed: twice as long each time, or what the Hub asks for."""
    pause: float = min(pace.first_pause * 2.0**attempt, pace.longest_pause)
    if isinstance(error, HfHubHTTPError):
        with suppress(ValueError):
            pause = min(float(error.response.headers.get("retry-after", pause)), LONGEST_ASKED)
    return pause
