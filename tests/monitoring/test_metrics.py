"""Metrics: every event moves what it should, and nothing that anybody does makes them grow without end."""

from __future__ import annotations

import gc
import math
import tracemalloc

import pytest
from prometheus_client import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from executor import events
from executor.results import LANGUAGES
from executor.settings import Settings
from monitoring.labels import Bounded, cause_of_death
from monitoring.metrics import AGES, DURATIONS
from monitoring.reference import event_kinds
from tests.monitoring.conftest import Watched
from tests.monitoring.script import called, closed, execution, finished, opened, started, violated


def series(watched: Watched) -> int:
    return sum(len(metric.samples) for metric in watched.metrics.registry.collect())


def test_executions_are_counted_by_language_and_status_and_timed(watched: Watched) -> None:
    watched.say(opened())
    for number, language in enumerate(("python", "python", "javascript", "bash")):
        watched.say(*execution(number, language=language, status="error" if language == "bash" else "ok"))  # type: ignore[arg-type]
    assert watched.value("executions_total", language="python", status="ok") == 2
    assert watched.value("executions_total", language="javascript", status="ok") == 1
    assert watched.value("executions_total", language="bash", status="error") == 1
    assert watched.value("executions_total", language="bash", status="ok") == 0
    assert watched.value("execution_seconds_count", language="python") == 2
    assert watched.value("execution_seconds_sum", language="python") == pytest.approx(0.008)
    assert watched.value("queue_seconds_count") == 4


def test_what_an_execution_gave_is_added_up(watched: Watched) -> None:
    watched.say(opened(), finished(1, limits=("output", "timeout"), pictures=2, picture_chars=4000))
    assert watched.value("output_chars_total", stream="stdout") == 120
    assert (watched.value("pictures_total"), watched.value("picture_bytes_total")) == (2, 3000)
    assert watched.value("limits_hit_total", limit="timeout") == 1
    assert watched.value("limits_hit_total", limit="output") == 1


def test_sessions_and_executions_at_work_are_gauges_of_now(watched: Watched) -> None:
    watched.say(opened(session_id="a"), opened(session_id="b"), started(1, session_id="a", language="bash"))
    assert watched.value("sessions_live") == 2
    assert watched.value("executions_in_flight", language="bash") == 1
    longest = watched.value("execution_longest_seconds")
    assert longest is not None
    assert 0 <= longest < 60
    watched.say(finished(1, session_id="a", language="bash"), closed(session_id="b", reason="expired"))
    assert watched.value("sessions_live") == 1
    assert watched.value("executions_in_flight", language="bash") == 0
    assert watched.value("sessions_opened_total") == 2
    assert watched.value("sessions_ended_total", reason="expired") == 1
    assert watched.value("session_age_seconds_sum") == 12.5


def test_measurements_are_added_up_over_live_sessions_only(watched: Watched) -> None:
    watched.say(opened(session_id="a"), opened(session_id="b"))
    for session, memory in (("a", 100), ("b", 300), ("never-opened", 900)):
        watched.say(
            events.SessionMeasured(session_id=session, owner="o", memory=memory, processes=2, folder_bytes=memory // 10)
        )
    assert (watched.value("sessions_memory_bytes"), watched.value("session_memory_max_bytes")) == (400, 300)
    assert (watched.value("sessions_folder_bytes"), watched.value("sessions_processes")) == (40, 4)
    watched.say(closed(session_id="b"))
    assert (watched.value("sessions_memory_bytes"), watched.value("session_memory_max_bytes")) == (100, 100)


def test_an_end_that_was_lost_does_not_leave_an_execution_at_work_for_ever(watched: Watched) -> None:
    watched.say(opened(), started(1), closed())
    assert watched.value("executions_in_flight", language="python") == 0


def test_calls_connections_refusals_and_faults_are_counted(watched: Watched) -> None:
    watched.say(
        called(outcome="cancelled"),
        called(identified=False),
        events.ConnectionChanged(transport="sse", open=True),
        events.ConnectionChanged(transport="sse", open=True),
        events.ConnectionChanged(transport="sse", open=False),
        events.AccessRefused(reason="token", path="/files/x"),
        events.Fault(where="zygote", detail="it died"),
        events.FileTransferred(session_id="s", owner="o", action="put", size=12),
        events.PackagesInstalled(
            session_id="s", owner="o", language="python", installed=2, refused=1, size=9, seconds=1.5
        ),
        events.BackendStarted(seconds=1.0),
        events.BackendStarted(seconds=2.0, restart=True),
    )
    tool = {"tool": "execute_python_code", "transport": "sse"}
    assert watched.value("tool_calls_total", outcome="cancelled", **tool) == 1
    assert watched.value("unidentified_calls_total") == 1
    assert watched.value("connections", transport="sse") == 1
    assert watched.value("connections_opened_total", transport="sse") == 2
    assert watched.value("access_refused_total", reason="token") == 1
    assert watched.value("faults_total", where="zygote") == 1
    assert watched.value("file_transfer_bytes_total", action="put") == 12
    assert watched.value("packages_total", language="python", outcome="installed") == 2
    assert watched.value("packages_total", language="python", outcome="refused") == 1
    assert (watched.value("backend_starts_total"), watched.value("backend_restarts_total")) == (2, 1)
    assert watched.value("backend_start_seconds") == 2


def test_the_age_of_a_session_that_nobody_used_until_it_expired_has_a_bucket() -> None:
    assert AGES[-1] == Settings().retention_days * 86_400


def test_the_sandbox_is_told_as_level_rank_and_layers(watched: Watched) -> None:
    assert watched.value("sandbox_level", level="weak") is None, "not known yet: the alert asks for this series"
    watched.say(events.SandboxProbed(level="strong", layers={"landlock": (True, "on"), "namespaces": (False, "off")}))
    assert [watched.value("sandbox_level", level=level) for level in ("full", "strong", "weak")] == [0, 1, 0]
    assert watched.value("sandbox_rank") == 1
    assert watched.value("sandbox_layer", layer="landlock") == 1
    assert watched.value("sandbox_layer", layer="namespaces") == 0


def test_violations_are_counted_by_rule_and_layer(watched: Watched) -> None:
    watched.say(violated(), violated(rule="connect", layer="sandbox"), violated(rule="connect", layer="sandbox"))
    assert watched.value("violations_total", language="python", rule="process-spawn", layer="policy") == 1
    assert watched.value("violations_total", language="python", rule="connect", layer="sandbox") == 2


def test_every_event_moves_a_metric_or_is_known_not_to(watched: Watched) -> None:
    moved = {kind.__name__ for kind in event_kinds() if kind in watched.metrics._handlers}
    assert {kind.__name__ for kind in event_kinds()} - moved == {"SessionMeasured"}  # read from `Live`


def test_buckets_reach_from_a_millisecond_to_the_longest_execution() -> None:
    assert (DURATIONS[0], DURATIONS[-1]) == (0.001, 600)
    assert list(DURATIONS) == sorted(DURATIONS)


def test_both_formats_parse_and_say_the_same(watched: Watched) -> None:
    watched.say(opened(), *execution(1))
    registry = watched.metrics.registry
    text = {m.name: m for m in text_string_to_metric_families(generate_latest(registry).decode())}
    openmetrics = {m.name: m for m in parse_openmetrics(generate_openmetrics(registry).decode())}
    assert text.keys() == openmetrics.keys()
    assert len(text) > 55
    for name in ("interpreter_executions", "interpreter_execution_seconds"):
        key = lambda sample: (sample.name, sorted(sample.labels.items()))  # noqa: E731
        assert sorted(map(key, text[name].samples)) == sorted(map(key, openmetrics[name].samples))
    assert not [name for name in text if name.endswith("_created")]


def test_guests_and_callers_cannot_make_series_without_end(watched: Watched) -> None:
    for number in range(2000):
        name = f"made-up-{number}"
        watched.say(
            violated(rule=name),
            events.WorkerReplaced(session_id="s", owner=name, language="bash", cause=f"exit code {number}"),
            events.WorkerReplaced(session_id="s", owner=name, language="bash", cause=name),
            called(tool=name, owner=name, request_id=name),
            events.Fault(where=name, detail=name),
            finished(number, session_id=name, owner=name, limits=(name,)),
        )
    assert series(watched) < 6000
    assert watched.value("violations_total", language="python", rule="other", layer="policy") > 1800  # type: ignore[operator]
    assert (
        sum(
            sample.value
            for metric in watched.metrics.registry.collect()
            if metric.name == "interpreter_violations"
            for sample in metric.samples
        )
        == 2000
    )


def test_ten_thousand_executions_leave_no_growth_in_memory_or_series(watched: Watched) -> None:
    def run(first: int, count: int) -> None:
        for number in range(first, first + count):
            language = LANGUAGES[number % 3]
            session, owner = f"session-{number}", f"owner-{number}"
            watched.say(opened(session_id=session, owner=owner)) if number % 100 == 0 else None
            session, owner = f"session-{number // 100 * 100}", f"owner-{number // 100 * 100}"
            for event in execution(number, session_id=session, owner=owner, language=language):
                watched.bus.publish(event)
            if number % 100 == 99:
                watched.say(closed(session_id=session, owner=owner))
                watched.history.sample()
        watched.out.seek(0)
        watched.out.truncate()

    run(0, 45_000)  # until every bounded thing is full: 360 samples, 4096 pseudonyms, 1000 flood keys
    gc.collect()
    before = series(watched)
    tracemalloc.start()
    run(45_000, 1000)
    gc.collect()
    first, _ = tracemalloc.get_traced_memory()
    run(46_000, 10_000)
    gc.collect()
    last, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert series(watched) == before
    assert last - first < 300_000, f"{last - first} bytes more after 10,000 executions"
    assert watched.bus.failed == 0


def test_a_label_value_must_be_short_and_plain_and_among_the_first() -> None:
    label = Bounded(("known",), most=4)
    assert [label(v) for v in ("known", "a", "b" * 65, "c\n", "", "b", "c", "a")] == [
        "known",
        "a",
        "other",
        "other",
        "other",
        "b",
        "other",
        "a",
    ]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("memory: signal 9 (killed)", "memory"),
        ("signal 11 (no further reason)", "signal_11"),
        ("exit code 3", "exit"),
        ("exit code 4711", "exit"),
    ],
)
def test_causes_of_death_are_few(text: str, label: str) -> None:
    assert cause_of_death(text) == label


def test_values_are_finite(watched: Watched) -> None:
    watched.say(opened(), *execution(1), closed())
    values = [s.value for m in watched.metrics.registry.collect() for s in m.samples if not s.name.endswith("_bucket")]
    assert all(math.isfinite(value) for value in values)


def test_a_refusal_for_want_of_a_share_is_counted_by_kind_and_written_with_a_pseudonym(watched: Watched) -> None:
    watched.say(events.QuotaRefused(owner="a-user-id", kind="calls"))
    assert watched.value("quota_refusals_total", kind="calls") == 1
    assert watched.value("quota_refusals_total", kind="disk") == 0
    [line] = watched.lines("quota refused")
    assert (line["level"], line["kind"], line["owner"]) == ("warning", "calls", watched.of("a-user-id"))
    assert "a-user-id" not in watched.out.getvalue()
