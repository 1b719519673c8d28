"""The load tool itself, with tiny numbers: it must neither rot nor call good what is not."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.load.__main__ import run
from tests.load.memory import Memory, Seen, read
from tests.load.plan import Plan, parse
from tests.load.tally import Tally, quantiles


async def test_a_small_load_with_a_kill_and_every_scenario_finds_nothing_wrong(tmp_path: Path) -> None:
    plan = Plan(
        clients=2,
        seconds=10,
        max_sessions=1,
        pause=0.05,
        payload_kb=4,
        kill_every=4,
        kills=1,
        slow_readers=1,
        connections=20,
        alone=3,
        settle=0.5,
    )
    tally = await run(plan, tmp_path)
    assert not tally.failed, tally.report()
    assert tally.kills == 1 and tally.restored >= 1
    assert tally.seconds["stateful"] and tally.seconds["short"]
    assert "20 held" in tally.facts["idle connections"] and "1 stopped" in tally.facts["slow readers"]
    assert {"server", "start", "end"} <= set(tally.report().split())
    assert len(tally.seconds["short, alone"]) == len(tally.seconds["short, row"]) == 3
    assert "times their p50 alone" in tally.report()


async def test_uploads_that_die_leave_nothing(tmp_path: Path) -> None:
    tally = await run(Plan(clients=1, seconds=1, dying_uploads=5, alone=0, settle=0.5), tmp_path)
    assert not tally.failed, tally.report()
    assert tally.facts["dying uploads"] == "5 broke off, 0 files are left"


def test_a_value_may_be_ten_seconds_older_than_a_kill_and_no_older() -> None:
    memory = Memory("a", 1)
    for at in (100.0, 105.0, 112.0):
        memory.next_cell()
        memory.take(Seen(memory.sent - 1, "", memory.sent - 1, 0), at, life=2)
    assert memory.least(2, [90.0]) == 3
    assert memory.least(3, [90.0, 116.0]) == 2
    assert memory.least(4, [90.0, 115.0, 500.0]) == 2
    assert memory.least(3, [90.0, 111.9]) == 1, "the last answer was on its way when the server was killed"
    memory.next_cell()
    assert memory.take(Seen(1, "", 1, 0), 130.0, life=3) == 2
    assert memory.least(3, [90.0, 112.5]) == 4


def test_the_digest_is_what_the_cell_itself_would_print(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    memory, names = Memory("a", 2), {"__name__": "cell"}
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for _ in range(3):
            exec(memory.next_cell(), names)  # the same code that the server runs
            found.append(read(capsys.readouterr().out))
    assert [seen and dataclasses.astuple(seen) for seen in found] == [
        (number, memory.digest(number), number, 0) for number in range(3)
    ]


def test_what_went_wrong_makes_the_run_fail_and_is_told() -> None:
    tally = Tally()
    assert tally.failed, "a run in which nothing was answered proves nothing"
    tally.took("short", 0.01)
    assert not tally.failed
    for what in ("wrong", "unexpected", "twice", "stale", "silent"):
        bad = Tally()
        bad.took("short", 0.01)
        bad.complain(what, "a sentence")
        assert bad.failed and "a sentence" in bad.report()


def test_quantiles_are_of_the_values_themselves() -> None:
    assert quantiles([second / 1000 for second in range(1, 101)]) == pytest.approx(
        {"count": 100, "p50": 51, "p95": 96, "p99": 100, "max": 100}
    )


def test_flags_make_the_plan_and_have_bounds(capsys: pytest.CaptureFixture[str]) -> None:
    plan = parse(["--clients", "3", "--minutes", "0.5", "--kill-every", "7", "--connections", "2000"])
    assert (plan.clients, plan.seconds, plan.kill_every, plan.connections) == (3, 30, 7, 2000)
    for flags in (["--clients", "100000"], ["--clients", "nan"], ["--minutes", "nan"]):
        with pytest.raises(SystemExit):
            parse(flags)
    assert "from 1 to 200" in capsys.readouterr().err
