"""How the picker names a session."""

from __future__ import annotations

from typing import Any

import pytest

from executor.results import SessionInfo
from space.content import session_data
from space.page.sessions import session_label
from space.wording import size_in_short


def session(**fields: Any) -> SessionInfo:
    values: dict[str, Any] = {"id": "s1", "owner": "a", "created_at": 0.0, "last_used": 0.0, "executions": 3}
    return SessionInfo(**(values | fields))


def test_a_live_one_has_its_age_and_says_when_it_runs() -> None:
    assert session_label(1, session(), 20.0) == "Session 1 · new · live"
    assert session_label(2, session(running="e1"), 600.0) == "Session 2 · 10 min old · running"


def test_a_parked_one_says_so_with_its_size_and_names() -> None:
    parked = session(state="parked", snapshot_at=5.0, snapshot_bytes=1_400_000, names=("df", "model", "x", "y", "z"))
    assert session_label(3, parked, 7 * 3600) == "Session 3 · 7 h old · parked, 1.4 MB · df, model, x and 2 more"
    assert session_label(3, session(state="parked"), 5 * 86_400) == "Session 3 · 5 days old · parked, 0 bytes"
    assert session_data(parked)["state"] == "parked" and session_data(parked)["names"] == list(parked.names)
    assert "names" not in session_data(session())


@pytest.mark.parametrize(
    ("size", "words"), [(999, "999 bytes"), (1_000, "1.0 kB"), (56_000, "56 kB"), (2_340_000_000, "2.3 GB")]
)
def test_sizes_are_short(size: int, words: str) -> None:
    assert size_in_short(size) == words
