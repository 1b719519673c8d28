"""The smoke test notices what is wrong; that it passes where all is well is shown by the whole way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from deploy.checks import Report
from deploy.probe import Access
from deploy.smoke import Smoke
from tests.e2e.running import RunningSpace


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSpace]:
    running = RunningSpace.start(tmp_path_factory.mktemp("space"), TOOLS="execute_python_code,get_system_info")
    yield running
    running.stop()


async def tried(space: RunningSpace, access: Access | None, **wanted: object) -> tuple[Report, dict[str, str]]:
    said: list[str] = []
    report = await Smoke(space.url, access, say=said.append, transports=("sse",), allow_weak=True, **wanted).run()
    assert len(said) == len(report.checks), "each check is told as soon as it is done"
    return report, {check.name: check.detail for check in report.checks if not check.ok}


async def test_an_address_that_lets_anybody_in_fails_although_all_else_works(space: RunningSpace) -> None:
    report, wrong = await tried(space, Access(token="hf_any"))
    assert not report.ok
    assert "the Space is not private" in wrong["a request without a token is refused"]


async def test_another_build_than_the_one_deployed_ends_the_test(space: RunningSpace) -> None:
    report, wrong = await tried(space, None, build_id="abcdefabcdef")
    assert wrong == {"healthy, and the right build": "build source answers, not abcdefabcdef"}
    assert len(report.checks) == 2


async def test_missing_tools_are_named_and_the_rest_is_still_tried(space: RunningSpace) -> None:
    report, wrong = await tried(space, None)
    assert "execute_bash_command" in wrong["sse: tools"]
    assert "sse: bash" in wrong
    assert "sse: a file up and down" in wrong
    assert "sse: python" not in wrong
    assert report.level in ("full", "strong", "weak")
    assert any(check.name == "sse: latency" and "p50" in check.detail for check in report.checks)


async def test_what_the_space_is_told_not_to_offer_is_skipped_and_an_own_machine_needs_no_wall(space) -> None:
    offered = ("execute_python_code", "get_system_info")
    report, wrong = await tried(space, Access(token="hf_any"), offered=offered, private=False)
    assert wrong == {}
    skipped = {check.name: check.detail for check in report.checks if check.detail.startswith("skipped")}
    assert "execute_bash_command" in skipped["sse: bash"]
    assert "sse: a plot comes back" not in skipped


async def test_nothing_is_left_behind_and_a_cap_on_calls_is_waited_for(tmp_path, monkeypatch) -> None:
    running = RunningSpace.start(tmp_path, OWNER_SESSIONS="1", OWNER_CALLS_PER_MINUTE="58")
    try:
        for _ in range(2):
            smoke = Smoke(running.url, None, say=lambda _: None, transports=("sse",), allow_weak=True)
            report = await smoke.run()
            assert report.ok, [str(check) for check in report.checks]
            assert report.checks[-1].detail == "1 closed"
        assert smoke._waited, "the cap was never met"
    finally:
        running.stop()


async def test_nobody_there_is_one_failed_check_and_no_traceback() -> None:
    said: list[str] = []
    report = await Smoke("http://127.0.0.1:9", None, say=said.append).run()
    assert not report.ok
    assert said[-1].startswith("FAIL healthy, and the right build")
    assert "ConnectError" in said[-1]
