"""When a request is worth making again, how long to wait before, and when it is enough."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import httpx2
from huggingface_hub.errors import HfHubHTTPError

T = TypeVar("T")

RETRIED = {408, 425, 429, 500, 502, 503, 504}
CONFLICT = "another conflicting operation is in progress"
"""What the Hub says (409) to two changes of one account at once; it passes, other 409 do not."""
LONGEST_ASKED = 120.0
"""Seconds that we wait at most where the Hub asks for a pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How patient we are; all in seconds but `tries`. `sleep` is what waits, so that tests can wind the clock on."""

    tries: int = 4
    step_timeout: float = 300.0
    """After so long one step with all its tries begins no other."""
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
        return error.response.status_code in RETRIED or conflicting(error)
    return isinstance(error, (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError))


def conflicting(error: HfHubHTTPError) -> bool:
    """Whether the Hub is only busy with another change of the same account."""
    return error.response.status_code == 409 and CONFLICT in f"{error} {error.server_message}"


def pause_before(attempt: int, error: Exception, pace: Pace) -> float:
    """Seconds to wait after `attempt` (from 0) failed: twice as long each time, or what the Hub asks for."""
    pause: float = min(pace.first_pause * 2.0**attempt, pace.longest_pause)
    if isinstance(error, HfHubHTTPError):
        with suppress(ValueError):
            pause = min(float(error.response.headers.get("retry-after", pause)), LONGEST_ASKED)
    return pause


def persist(act: Callable[[], T], pace: Pace, *, found: Callable[[], T | None] = lambda: None) -> T:
    """The answer of `act`, made again while that can help: `pace.tries` times, and within `pace.step_timeout`.

    `found` looks, where an answer was lost, whether the request was carried out, and gives the answer then; without it
    `act` must be one that may run twice. Raises what the last try raised.
    """
    begun = time.monotonic()
    for attempt in itertools.count():
        try:
            return act()
        except Exception as error:
            if lost(error) and (there := found()) is not None:
                return there
            pause = pause_before(attempt, error, pace)
            late = time.monotonic() - begun + pause > pace.step_timeout
            if late or attempt + 1 >= pace.tries or not may_retry(error):
                raise
            pace.sleep(pause)
    raise AssertionError("unreachable")
