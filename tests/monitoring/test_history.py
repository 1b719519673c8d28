"""History: the last hour, the newest violations and errors, the sessions of now."""

from __future__ import annotations

import pytest

from executor import events
from tests.monitoring.conftest import Watched
from tests.monitoring.script import called, closed, finished, opened, started, violated


def test_a_sample_says_what_happened_since_the_one_before(watched: Watched) -> None:
    watched.say(
        opened(), *(finished(n, seconds=n / 100) for n in range(1, 101)), finished(101, status="error", seconds=9)
    )
    watched.say(violated(), started(200))
    watched.history.sample(now=1000.0)
    watched.history.sample(now=1010.0)
    first, second = watched.history.samples()
    assert (first.at, first.executions, first.failed, first.violations) == (1000.0, 101, 1, 1)
    assert (first.p50, first.p95, first.p99) == (pytest.approx(0.51), pytest.approx(0.96), pytest.approx(1.0))
    assert (first.sessions, first.in_flight) == (1, 1)
    assert (second.executions, second.failed, second.violations, second.p50) == (0, 0, 0, None)


def test_an_hour_is_kept_and_no_more(watched: Watched) -> None:
    for number in range(500):
        watched.history.sample(now=float(number))
    assert [sample.at for sample in watched.history.samples()] == [float(number) for number in range(140, 500)]


def test_violations_and_errors_come_newest_first_and_name_nobody(watched: Watched) -> None:
    watched.say(opened(), *(violated(rule=f"rule-{n}", owner="alice") for n in range(150)))
    watched.say(
        finished(1, status="ok"),
        finished(2, status="crashed"),
        events.WorkerReplaced(session_id="session-0", owner="alice", language="bash", cause="signal 9"),
        events.Fault(where="zygote", detail="it died"),
        events.BackendStarted(seconds=1.0, restart=True),
        called(outcome="fault"),
    )
    violations, errors = watched.history.violations(), watched.history.errors()
    assert len(violations) == 100
    assert violations[0].kind == "rule-149"
    assert violations[0].owner == watched.of("alice")
    assert [note.kind for note in errors] == [
        "call failed",
        "backend restarted",
        "zygote",
        "worker replaced",
        "crashed",
    ]
    assert errors[2].text == "it died"
    assert "alice" not in repr(violations + errors)


def test_the_sessions_of_now_have_what_a_table_needs(watched: Watched) -> None:
    watched.say(
        events.SessionOpened(at=1000.0, session_id="a", owner="alice", seconds=0.1),
        events.SessionOpened(at=1005.0, session_id="b", owner="bob", seconds=0.1),
        events.SessionMeasured(session_id="a", owner="alice", memory=7, processes=3, folder_bytes=9),
        events.ExecutionStarted(
            at=1010.0, session_id="b", owner="bob", execution_id="e1", language="bash", code="sleep 9", queued=0.0
        ),
    )
    a, b = watched.history.sessions(now=1020.0)
    assert (a.session_id, a.session, a.owner) == ("a", watched.of("a"), watched.of("alice"))
    assert (a.age, a.idle, a.memory, a.processes, a.folder_bytes, a.running) == (20.0, 20.0, 7, 3, 9, "")
    assert (b.running, b.running_seconds, b.idle, b.execution_id) == ("bash", 10.0, 0.0, "e1")
    watched.say(finished(1, session_id="a"), closed(session_id="b"))
    [row] = watched.history.sessions()
    assert row.executions == 1
