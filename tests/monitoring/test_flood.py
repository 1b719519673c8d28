"""Flood control: repeated lines are counted and told of, memory is bounded."""

from __future__ import annotations

from monitoring.flood import Flood, Repeated


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_lines_past_the_limit_are_held_back_and_told_of_once_the_window_is_over() -> None:
    clock = Clock()
    flood = Flood(seconds=60, clock=clock)
    assert [flood.admit("a", "line a", 3) for _ in range(5)] == [True, True, True, False, False]
    assert flood.admit("b", "line b", 3)
    assert flood.ended() == []
    clock.now += 61
    assert flood.ended() == [Repeated("line a", 2, 60)]
    assert flood.ended() == []
    assert flood.admit("a", "line a", 3), "a new window begins"


def test_everything_ends_at_the_end() -> None:
    clock = Clock()
    flood = Flood(seconds=60, clock=clock)
    for _ in range(3):
        flood.admit("a", "line a", 1)
    clock.now += 10
    assert flood.ended(everything=True) == [Repeated("line a", 2, 10)]


def test_no_more_keys_are_held_than_allowed_and_none_is_lost_silently() -> None:
    flood = Flood(keys=10, clock=Clock())
    told = []
    for number in range(50):
        for _ in range(3):
            flood.admit(number, str(number), 1)
        told += flood.ended()
    assert [repeated.times for repeated in told] == [2] * 40
    assert len(flood.ended(everything=True)) == 10
