"""Quotas: caps hold to the byte and the call, refusals say what to do, and nobody else is touched."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from executor.errors import QuotaExceeded
from executor.events import Event, QuotaRefused
from executor.quotas import Quotas
from executor.settings import Settings

MIB = 1024 * 1024


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def quotas(clock: Callable[[], float] | None = None, said: list[Event] | None = None, **caps: int) -> Quotas:
    heard: list[Event] = [] if said is None else said
    return Quotas(Settings(**caps), shared=("anonymous",), publish=heard.append, clock=clock or Clock())


def calls(kept: Quotas, owner: str, tries: int) -> int:
    admitted = 0
    for _ in range(tries):
        try:
            kept.admit_call(owner)
        except QuotaExceeded:
            continue
        admitted += 1
    return admitted


def test_half_a_minutes_calls_may_come_at_once_and_then_as_many_as_the_rate_allows() -> None:
    clock = Clock()
    kept = quotas(clock, owner_calls_per_minute=60)
    assert calls(kept, "a", 100) == 30
    clock.now += 5
    assert calls(kept, "a", 100) == 5
    clock.now += 3600
    assert calls(kept, "a", 100) == 30
    assert calls(kept, "b", 100) == 30


def test_whoever_calls_too_often_hears_after_how_many_seconds_to_try_again_and_that_is_right() -> None:
    clock, said = Clock(), list[Event]()
    kept = quotas(clock, said, owner_calls_per_minute=6)
    assert calls(kept, "a", 3) == 3
    with pytest.raises(QuotaExceeded, match=r"over 6 calls a minute.*Try again in 10 s") as refused:
        kept.admit_call("a")
    assert refused.value.retry_after == pytest.approx(10)
    assert [(event.owner, event.kind) for event in said if isinstance(event, QuotaRefused)] == [("a", "calls")]
    clock.now += 9.9
    with pytest.raises(QuotaExceeded):
        kept.admit_call("a")
    clock.now += 0.1
    kept.admit_call("a")


def test_over_any_window_no_more_calls_pass_than_the_burst_and_the_rate() -> None:
    clock, chance = Clock(), random.Random(3)
    kept = quotas(clock, owner_calls_per_minute=120)
    passed: list[float] = []
    for _ in range(5_000):
        clock.now += chance.expovariate(4)
        if calls(kept, "a", 1):
            passed.append(clock.now)
    for first in range(0, len(passed), 17):
        for last in range(first, len(passed), 13):
            assert last - first + 1 <= 60 + (passed[last] - passed[first]) * 2 + 1e-6
    assert len(passed) >= (clock.now - 1_000) * 2 - 60


def test_a_clock_that_runs_back_gives_nothing_and_takes_nothing() -> None:
    clock = Clock()
    kept = quotas(clock, owner_calls_per_minute=10)
    assert calls(kept, "a", 5) == 5
    clock.now -= 500
    assert calls(kept, "a", 5) == 0
    clock.now += 30
    assert calls(kept, "a", 10) == 5


def test_live_and_parked_sessions_count_up_to_the_cap() -> None:
    kept = quotas(owner_sessions=2)
    kept.admit_session("a", 1)
    with pytest.raises(QuotaExceeded, match=r"has 2 sessions, live and parked; the cap is 2.*close_execution_session"):
        kept.admit_session("a", 2)


def test_memory_is_of_live_sessions_and_parking_gives_it_back() -> None:
    kept = quotas(owner_memory_mb=100)
    kept.note_memory("a", "s1", 60 * MIB)
    kept.note_memory("a", "s2", 40 * MIB)
    kept.admit_memory("a")
    kept.note_memory("a", "s2", 40 * MIB + 1)
    assert kept.excess_memory("a") == 1
    with pytest.raises(QuotaExceeded, match=r"take 101 MiB of memory; the cap is 100 MiB"):
        kept.admit_memory("a")
    kept.admit_memory("b")
    kept.parked("a", "s2")
    kept.admit_memory("a")
    assert kept.memory("a") == 60 * MIB


def test_disk_is_folders_and_snapshots_and_only_the_snapshot_stays_when_a_session_is_parked() -> None:
    kept = quotas(owner_disk_mb=10)
    kept.note_folder("a", "s1", 6 * MIB)
    kept.note_snapshot("a", "s1", 3 * MIB)
    kept.admit_disk("a")
    kept.admit_disk("a", MIB)
    with pytest.raises(QuotaExceeded, match=r"take 9 MiB, and 2 MiB would come on top; the cap is 10 MiB.*delete_file"):
        kept.admit_disk("a", 2 * MIB)
    kept.parked("a", "s1")
    assert kept.disk("a") == 3 * MIB
    kept.forget("a", "s1")
    kept.forget("a", "s1")
    assert (kept.disk("a"), kept.memory("a")) == (0, 0)


def test_an_owner_who_stands_for_many_and_a_cap_of_none_refuse_nothing() -> None:
    strict = {
        "owner_sessions": 1,
        "owner_memory_mb": 1,
        "owner_disk_mb": 1,
        "owner_calls_per_minute": 1,
    }
    for kept, owner in ((quotas(**strict), "anonymous"), (quotas(**dict.fromkeys(strict, 0)), "a")):
        kept.note_memory(owner, "s", 10**12)
        kept.note_folder(owner, "s", 10**12)
        kept.admit_session(owner, 10**6)
        kept.admit_memory(owner)
        kept.admit_disk(owner, 10**12)
        assert calls(kept, owner, 1_000) == 1_000


def test_only_so_many_callers_are_remembered() -> None:
    kept = quotas(owner_calls_per_minute=4)
    assert calls(kept, "first", 3) == 2
    for number in range(10_000):
        kept.admit_call(f"owner-{number}")
    assert calls(kept, "first", 3) == 2, "forgotten, and so begun anew"
    assert len(kept._buckets) == 10_000
