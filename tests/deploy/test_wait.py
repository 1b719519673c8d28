"""Waiting for a build: the right one, never an old one, and no longer than it can still come."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import replace
from functools import partial

import pytest

from deploy.config import Storage
from deploy.errors import DeployError, Exit
from deploy.probe import Access
from deploy.wait import BuildFailed, wait_for_build, wake
from tests.deploy.conftest import FAST, READ, SECRETS, Deployer, a_target
from tests.hub import Fault, Status
from tests.hub.space import BUILD, RESTART


def waited(deployer: Deployer, build_id: str = "", **pace: float) -> str:
    build = build_id or deployer.bundle.build_id
    deployer.pace = replace(FAST, **pace)
    client, access = deployer.client, Access(token=READ)
    wait_for_build(client, "ada/code", deployer.space.host, access, build_id=build, say=deployer.said.append)
    return "\n".join(deployer.said)


def test_the_stages_and_the_last_build_line_are_told(deployer: Deployer) -> None:
    deployer.apply()
    said = waited(deployer)
    assert re.search(r"BUILDING · \d+ s · Successfully installed everything", said)
    assert re.search(r"RUNNING · \d+ s · build [0-9a-f]{12} answers", said)


def test_a_running_space_counts_only_once_the_new_build_answers(make_deployer, tree) -> None:
    deployer: Deployer = make_deployer(tree)
    deployer.apply()
    waited(deployer)
    (tree / "executor" / "errors.py").write_text('"""New."""\n')
    # right after the commit the Hub still tells RUNNING, and the old build still answers
    deployer.space.build_script = ["RUNNING", "RUNNING", *BUILD]
    deployer.said.clear()
    deployer.apply()
    deployer.hub.forget()
    assert f"build {deployer.bundle.build_id} answers" in waited(deployer)
    answers = [visit.answered["build"] for visit in deployer.hub.asked("app")]
    assert answers[0] != answers[-1] == deployer.bundle.build_id


@pytest.mark.parametrize(
    "change",
    [
        {"variables": {"MAX_SESSIONS": "6"}},
        {"secrets": {**SECRETS, "ACCESS_KEY": "another"}},
        {"volume": Storage(source="ada/bucket")},
    ],
)
def test_new_settings_count_only_once_a_process_has_them(deployer: Deployer, change) -> None:
    deployer.apply()
    waited(deployer)
    deployer.target = a_target(**change)
    done = deployer.apply()
    assert done.plan.changes
    assert not done.plan.new_build
    wait = partial(
        wait_for_build,
        address=deployer.space.host,
        access=Access(token=READ),
        build_id=done.build_id,
        settings=done.settings,
        say=deployer.said.append,
    )
    # right after the change the Hub still tells RUNNING, and the old process still answers
    deployer.space.stages = deque(["RUNNING"])
    deployer.pace = replace(FAST, start_timeout=0.2)
    with pytest.raises(DeployError, match=r"still runs with the settings before.*deploy restart") as stop:
        wait(deployer.client, "ada/code")
    assert not isinstance(stop.value, BuildFailed)
    deployer.pace = FAST
    deployer.space.stages = deque(["RUNNING", "RUNNING", *RESTART])
    assert wait(deployer.client, "ada/code").data["settings"] == done.settings


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("BUILD_ERROR", "could not be built"),
        ("CONFIG_ERROR", "front matter that the Hub refuses"),
        ("RUNTIME_ERROR", "started and stopped again"),
        ("NO_APP_FILE", "has no app file"),
    ],
)
def test_a_build_that_fails_stops_the_wait_with_the_end_of_its_log(deployer: Deployer, stage, words) -> None:
    deployer.apply()
    deployer.space.build_log = [f"line {n}" for n in range(100)] + ["ERROR: ResolutionImpossible"]
    deployer.space.run_log = ["Traceback", "ERROR: ResolutionImpossible"]
    deployer.space.stages = deque(["BUILDING", stage])
    with pytest.raises(DeployError, match=words) as stop:
        waited(deployer)
    assert stop.value.code == Exit.BUILD
    assert "ERROR: ResolutionImpossible" in str(stop.value)
    assert "line 5\n" not in str(stop.value), "only the end of the log"
    assert "rollback" in str(stop.value)


def test_the_failure_of_the_build_before_does_not_end_the_wait_for_this_one(deployer: Deployer) -> None:
    deployer.apply()
    deployer.space.stages = deque(["BUILD_ERROR", "BUILD_ERROR", *BUILD])
    assert "answers" in waited(deployer, settle=5.0)


def test_a_failure_that_stays_is_believed_after_a_while(deployer: Deployer) -> None:
    deployer.apply()
    deployer.space.stages = deque(["BUILD_ERROR"])
    with pytest.raises(DeployError, match="could not be built"):
        waited(deployer, settle=0.1)


def test_a_paused_space_is_not_waited_for(deployer: Deployer) -> None:
    deployer.apply()
    deployer.space.stages = deque(["PAUSED"])
    with pytest.raises(DeployError, match=r"paused.*restart"):
        waited(deployer)


def test_a_token_that_may_not_see_the_running_space_is_said(deployer: Deployer) -> None:
    deployer.apply()
    waited(deployer)
    with pytest.raises(DeployError, match="LIBRECHAT_HF_TOKEN read access") as stop:
        wait_for_build(
            deployer.client,
            "ada/code",
            deployer.space.host,
            Access(token="hf_nobody"),
            build_id=deployer.bundle.build_id,
            say=deployer.said.append,
        )
    assert stop.value.code == Exit.WRONG_TOKEN


def test_faults_of_the_hub_are_waited_out_and_are_none_of_the_build(deployer: Deployer) -> None:
    deployer.apply()
    fault = Fault("GET", "runtime", 1, Status(503), lasts=True)
    deployer.hub.faults.append(fault)
    with pytest.raises(DeployError) as stop:
        waited(deployer, start_timeout=0.2)
    assert not isinstance(stop.value, BuildFailed)
    assert stop.value.code == Exit.HUB
    deployer.pace = FAST
    deployer.hub.faults.clear()
    deployer.hub.forget()
    # more of them than one request is tried
    deployer.hub.faults += [Fault("GET", "runtime", n, Status(503)) for n in range(2, 9)]
    assert "no word from the Hub" in waited(deployer)


def test_the_wait_ends_after_its_time(deployer: Deployer) -> None:
    deployer.apply()
    with pytest.raises(DeployError, match=r"did not answer within.*--rebuild") as stop:
        waited(deployer, "000000000000", start_timeout=0.3)
    assert stop.value.code == Exit.TIMEOUT


def test_wake_knocks_until_the_sleeper_answers(deployer: Deployer) -> None:
    deployer.apply()
    waited(deployer)
    deployer.space.stages = deque(["SLEEPING"])
    took = wake(deployer.space.host, Access(token=READ), timeout=30, sleep=lambda _: None, say=deployer.said.append)
    assert took < 30
    assert any("not awake yet" in line for line in deployer.said)


def test_the_token_that_may_write_is_sent_only_where_the_proxy_strips_it() -> None:
    assert Access(token="t", stripped=True).headers == {"X-HF-Authorization": "Bearer t"}
    assert Access(token="t", access_key="k").headers == {"Authorization": "Bearer t", "X-Access-Key": "k"}
    assert "t0ken" not in repr(Access(token="t0ken", access_key="t0ken"))
