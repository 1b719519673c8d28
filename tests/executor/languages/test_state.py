"""A Python session's variables go through a state file into a fresh worker: each comes back as it was, or is named."""

import pytest
from python_fixtures import *  # noqa: F403  fixtures
from state_kinds import KEPT, LOST


@pytest.fixture(scope="module", params=[True, False], ids=["forked", "in place"])
def passed_through(request, zygote, tmp_path_factory):
    """The head of a state with everything in it, and a fresh worker that has taken it over."""
    first = zygote.fork(tmp_path_factory.mktemp("session"))
    numbers = {}
    for name, (code, _) in (KEPT | LOST).items():
        cell = first.run(code)
        assert cell.status == "ok", (name, cell.error)
        numbers[name] = first.number
    head = first.save(fork=request.param)
    again = first.run("integer == 2 ** 200, look(), reading.tell(), image.getpixel((0, 0))")
    assert again.result == "(True, 1, 4, (255, 0, 0))", again.error
    first.close()
    second = zygote.fork(first.folder)
    event = second.restore()
    yield head, event, second, numbers
    second.close()


def test_nothing_is_said_to_be_both_kept_and_lost(passed_through):
    head, event, _, _ = passed_through
    assert head.problem == event["problem"] == ""
    assert not {lost["name"] for lost in head.lost} & set(head.names)
    assert set(event["names"]) == set(head.names)
    assert event["lost"] == list(head.lost)
    assert {lost["name"]: lost["reason"] for lost in head.lost if lost["name"] in KEPT} == {}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_behaves_as_before(passed_through, name):
    cell = passed_through[2].run(f"bool({KEPT[name][1]})")
    assert cell.error is None, cell.error["traceback"]
    assert cell.result == "True"


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_is_named_with_its_reason_and_its_cell(passed_through, name):
    head, _, worker, numbers = passed_through
    lost = {entry["name"]: entry for entry in head.lost}
    assert lost[name]["reason"] == LOST[name][1]
    assert lost[name]["cell"] == (numbers[name] if LOST[name][0] else numbers["db"])
    assert worker.run(name).error["type"] == "NameError"


def test_versions_of_packages_in_use_are_told(passed_through):
    assert {"python", "numpy", "pandas", "matplotlib", "sklearn", "PIL"} <= set(passed_through[0].versions)
