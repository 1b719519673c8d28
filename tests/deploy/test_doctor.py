"""`doctor` names what is wrong, with an exit code of its own for each."""

from __future__ import annotations

from collections import deque

import pytest

from deploy import doctor
from deploy.checks import Check, Report
from deploy.doctor import Finding, examine
from deploy.errors import Exit
from deploy.probe import Access
from tests.deploy.conftest import READ, Deployer, a_target
from tests.hub.space import Commit


def found(deployer: Deployer, token: str = READ) -> Finding:
    return examine(
        deployer.client,
        deployer.target,
        Access(token=token),
        own_token=True,
        build_id=deployer.bundle.build_id,
        say=deployer.said.append,
    )


@pytest.fixture
def live(deployer: Deployer) -> Deployer:
    deployer.apply()
    while deployer.client.runtime("ada/code")["stage"] != "RUNNING":
        pass
    return deployer


def test_no_space(deployer: Deployer) -> None:
    assert found(deployer).code == Exit.MISSING


def test_public(live: Deployer) -> None:
    live.space.private = False
    assert found(live).code == Exit.PUBLIC


@pytest.mark.parametrize(
    ("stage", "code", "advice"),
    [
        ("SLEEPING", Exit.SLEEPING, "deploy wake"),
        ("PAUSED", Exit.PAUSED, "deploy restart"),
        ("BUILDING", Exit.BUILDING, "deploy wait"),
        ("BUILD_ERROR", Exit.BUILD, "apply again"),
        ("RUNTIME_ERROR", Exit.BUILD, "rollback"),
    ],
)
def test_the_stage_explains_itself(live: Deployer, stage, code, advice) -> None:
    live.space.stages = deque([stage])
    finding = found(live)
    assert finding.code == code
    assert advice in finding.sentence


def test_wrong_plan(live: Deployer) -> None:
    live.space.stages = deque(["RUNTIME_ERROR"])
    live.space.run_log = ["No @spaces.GPU function detected during startup"]
    finding = found(live)
    assert finding.code == Exit.WRONG_PLAN
    assert "hardware" in finding.sentence


def test_wrong_token(live: Deployer) -> None:
    finding = found(live, "hf_nobody")
    assert finding.code == Exit.WRONG_TOKEN
    assert "LIBRECHAT_HF_TOKEN" in finding.sentence


def test_old_build(live: Deployer) -> None:
    live.space.running = Commit("Deploy 000000000000", {"BUILD": b"000000000000\n"})
    finding = found(live)
    assert finding.code == Exit.OLD_BUILD
    assert "--rebuild" in finding.sentence


@pytest.mark.parametrize(
    ("level", "failed", "code"),
    [
        ("weak", {"sse: sandbox", "streamable-http: sandbox"}, Exit.WEAK_SANDBOX),
        ("weak", {"sse: sandbox", "sse: python"}, Exit.SMOKE),
        ("weak", {}, Exit.OK),
        ("strong", {"sse: python"}, Exit.SMOKE),
        ("strong", {}, Exit.OK),
    ],
)
def test_the_smoke_test_decides_the_rest(live: Deployer, monkeypatch, level, failed, code) -> None:
    class Seen:
        def __init__(self, *_: object, **wanted: object) -> None:
            assert wanted["allow_weak"] is True
            assert wanted["offered"] == ("execute_python_code",)

        async def run(self) -> Report:
            names = ("sse: python", "sse: sandbox", "streamable-http: sandbox")
            return Report([Check(name=name, ok=name not in failed) for name in names], level)

    live.target = a_target(variables={"ALLOW_WEAK_SANDBOX": "on", "TOOLS": "execute_python_code"})
    monkeypatch.setattr(doctor, "Smoke", Seen)
    assert found(live).code == code


def test_every_finding_has_an_exit_code_of_its_own() -> None:
    assert len({int(code) for code in Exit}) == len(Exit.__members__)
