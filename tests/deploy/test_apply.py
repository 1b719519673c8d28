"""`apply` on an empty Hub, again, after changes, and onto Spaces that others made."""

from __future__ import annotations

from dataclasses import replace

import pytest

from deploy.config import Storage
from deploy.errors import DeployError, Exit
from deploy.hub import Hub
from deploy.probe import Access
from deploy.rollback import rollback
from deploy.tokens import may_deploy
from deploy.wait import wait_for_build
from space.build import NOTE
from tests.deploy.conftest import FREE, READ, SECRETS, WRITE, Deployer, a_target
from tests.deploy.invariants import nothing_leaked
from tests.hub.space import Commit, LocalSpace


def running(deployer: Deployer, build_id: str) -> str:
    """Wait for a build as the command does, and return the one that answers."""
    info = deployer.client.info(deployer.target.space)
    assert info is not None
    health = wait_for_build(
        deployer.client, info.id, info.host, Access(token=READ), build_id=build_id, say=deployer.said.append
    )
    return health.build_id


def test_an_empty_hub_gets_a_private_space_with_secrets_before_files(deployer: Deployer) -> None:
    done = deployer.apply()
    space = deployer.space
    assert space.private
    assert {k: v["value"] for k, v in space.secrets.items()} == SECRETS
    assert space.files.keys() == {*deployer.bundle.files, ".gitattributes"}
    assert all(space.files[path] == content for path, content in deployer.bundle.files.items())
    order = [e.route for e in deployer.hub.changes]
    assert order == ["create", "secrets", "secrets", "variables", "variables", "variables", "commit"]
    assert running(deployer, done.build_id) == deployer.bundle.build_id
    nothing_leaked(deployer.hub, SECRETS, (WRITE, READ))


def test_the_second_apply_changes_nothing(deployer: Deployer) -> None:
    deployer.apply()
    deployer.hub.forget()
    assert deployer.apply().plan.changes == ()
    assert deployer.hub.changes == []


def test_one_changed_line_is_exactly_one_commit_of_the_files_that_changed(make_deployer, tree) -> None:
    deployer: Deployer = make_deployer(tree)
    deployer.apply()
    deployer.hub.forget()
    path = tree / "executor" / "errors.py"
    path.write_text(path.read_text() + "# one more line\n")
    deployer.apply()
    (commit,) = deployer.hub.changes
    assert commit.route == "commit"
    assert commit.committed.keys() == {"executor/errors.py", "BUILD"}


def test_a_file_that_is_gone_here_is_deleted_there_in_the_same_commit(make_deployer, tree) -> None:
    deployer: Deployer = make_deployer(tree)
    extra = tree / "executor" / "extra.py"
    extra.write_text("x = 1\n")
    deployer.apply()
    deployer.hub.forget()
    extra.unlink()
    deployer.apply()
    (commit,) = deployer.hub.changes
    assert ("deletedFile", {"path": "executor/extra.py"}) in commit.operations
    assert deployer.space.files.keys() == {*deployer.bundle.files, ".gitattributes"}


def test_only_the_secret_that_changed_is_sent_again(deployer: Deployer) -> None:
    deployer.apply()
    deployer.hub.forget()
    deployer.target = a_target(secrets={**SECRETS, "LOG_SALT": "another-salt-now"})
    deployer.apply()
    assert [(e.route, e.json["key"]) for e in deployer.hub.changes] == [("secrets", "LOG_SALT"), ("variables", NOTE)]
    assert deployer.space.secrets["LOG_SALT"]["value"] == "another-salt-now"


def test_a_fingerprint_says_nothing_about_the_secret(deployer: Deployer) -> None:
    deployer.target = a_target(secrets={"ACCESS_KEY": "same-value-here", "ADMIN_KEY": "same-value-here"})
    deployer.apply()
    note = deployer.space.variables[NOTE]["value"]
    assert "same-value-here" not in note
    fingerprints = deployer.client.variables("ada/code")[NOTE][0]
    import json

    kept = json.loads(fingerprints)["secrets"]
    assert kept["ACCESS_KEY"] != kept["ADMIN_KEY"], "equal secrets must not be seen to be equal"


def test_what_is_no_longer_wanted_is_removed_and_what_others_added_stays(deployer: Deployer) -> None:
    deployer.apply()
    deployer.space.variables["THEIRS"] = {"value": "1", "updatedAt": "2026-01-01T00:00:00.000Z"}
    deployer.space.secrets["THEIR_KEY"] = {"value": "1", "updatedAt": "2026-01-01T00:00:00.000Z"}
    deployer.target = a_target(variables={"MAX_SESSIONS": "5"}, secrets={"ACCESS_KEY": SECRETS["ACCESS_KEY"]})
    drift = deployer.apply().plan.drift
    assert deployer.space.variables.keys() == {"MAX_SESSIONS", "THEIRS", NOTE}
    assert deployer.space.secrets.keys() == {"ACCESS_KEY", "THEIR_KEY"}
    assert any("THEIRS" in line for line in drift)
    assert any("THEIR_KEY" in line for line in drift)


def test_plan_shows_what_somebody_changed_in_the_browser_and_apply_mends_it(deployer: Deployer) -> None:
    deployer.apply()
    deployer.space.variables["MAX_SESSIONS"]["value"] = "99"
    deployer.space.secrets["ACCESS_KEY"] = {"value": "weak", "updatedAt": "2099-01-01T00:00:00.000Z"}
    deployer.space.commit("Update app.py", {**deployer.space.files, "app.py": b"print()\n"})
    deployer.hub.forget()
    plan = deployer.plan()
    assert deployer.hub.changes == [], "plan must not change anything"
    assert {str(c).split(" (")[0] for c in plan.changes} == {
        "~ variable MAX_SESSIONS",
        "~ secret ACCESS_KEY",
        "~ file app.py",
    }
    assert any("ACCESS_KEY" in line for line in plan.drift)
    assert any("Update app.py" in line for line in plan.drift)
    deployer.apply()
    assert deployer.space.secrets["ACCESS_KEY"]["value"] == SECRETS["ACCESS_KEY"]
    assert deployer.space.files["app.py"] == deployer.bundle.files["app.py"]


def test_a_space_of_ours_that_somebody_made_public_is_made_private_before_anything_else(deployer: Deployer) -> None:
    deployer.apply()
    deployer.space.private = False
    deployer.hub.forget()
    deployer.target = a_target(secrets={**SECRETS, "ADMIN_KEY": "brand-new-key"})
    deployer.apply()
    assert deployer.hub.changes[0].route == "settings"
    nothing_leaked(deployer.hub, {**SECRETS, "ADMIN_KEY": "brand-new-key"}, (WRITE,))


def test_a_name_taken_by_a_public_space_stops_before_anything_is_sent(deployer: Deployer) -> None:
    deployer.hub.spaces["ada/code"] = LocalSpace("ada/code", "gradio", False, "https://ada-code.hf.space")
    with pytest.raises(DeployError, match=r"taken by a Space that is public.*--space") as stop:
        deployer.apply()
    assert stop.value.code == Exit.NAME
    assert deployer.hub.changes == []


def test_a_space_that_others_filled_is_replaced_only_when_told_so(deployer: Deployer) -> None:
    theirs = LocalSpace("ada/code", "gradio", True, f"{deployer.hub.url}/running/ada/code")
    theirs.commits.append(Commit("mine", {"app.py": b"precious\n"}))
    deployer.hub.spaces["ada/code"] = theirs
    with pytest.raises(DeployError, match="--adopt"):
        deployer.apply()
    assert theirs.files == {"app.py": b"precious\n"}
    assert deployer.hub.changes == []
    deployer.apply(adopt=True)
    assert theirs.files["app.py"] == deployer.bundle.files["app.py"]


def test_the_hub_that_creates_a_public_space_gets_nothing_more(deployer: Deployer, monkeypatch) -> None:
    create = deployer.hub._create

    def public(user, asked):
        answer = create(user, asked)
        deployer.hub.spaces["ada/code"].private = False
        return answer

    monkeypatch.setattr(deployer.hub, "_create", public)
    with pytest.raises(DeployError, match=r"is not private\. Nothing more was sent"):
        deployer.apply()
    assert [e.route for e in deployer.hub.changes] == ["create"]


def test_hardware_sleep_time_and_volume_are_set_where_they_differ_and_other_volumes_stay(deployer: Deployer) -> None:
    deployer.apply()
    other = {"type": "model", "source": "ada/model", "mountPath": "/model", "readOnly": True}
    deployer.space.volumes = [other]
    deployer.target = a_target(
        hardware="cpu-upgrade", sleep_time=3600, volume=Storage(source="ada/bucket", mount_path="/data")
    )
    deployer.hub.forget()
    deployer.apply()
    assert deployer.space.hardware == "cpu-upgrade"
    assert deployer.space.sleep_time == 3600
    assert [v["source"] for v in deployer.space.volumes] == ["ada/model", "ada/bucket"]
    deployer.hub.forget()
    (drift,) = deployer.apply().plan.drift
    assert "ada/model at /model is attached and not asked for" in drift
    assert deployer.hub.changes == []
    deployer.target = replace(deployer.target, volume=None)
    assert any("ada/bucket at /data" in sentence for sentence in deployer.plan().drift)


def test_rollback_brings_the_former_files_and_build_back_in_one_commit(make_deployer, tree) -> None:
    deployer: Deployer = make_deployer(tree)
    first = deployer.apply()
    running(deployer, first.build_id)
    before = dict(deployer.space.files)
    (tree / "executor" / "errors.py").write_text('"""Broken."""\nraise SystemExit\n')
    (tree / "executor" / "added.py").write_text('"""New."""\n')
    second = deployer.apply()
    running(deployer, second.build_id)
    deployer.hub.forget()
    back = rollback(deployer.client, "ada/code", say=deployer.said.append)
    assert back.build_id == first.build_id != second.build_id
    assert len(deployer.hub.asked("commit")) == 1
    assert deployer.space.files == before
    assert running(deployer, back.build_id) == first.build_id
    forth = rollback(deployer.client, "ada/code", to=second.build_id[:6], say=deployer.said.append)
    assert forth.build_id == second.build_id
    assert "executor/added.py" in deployer.space.files


def test_rollback_without_an_earlier_build_says_so(deployer: Deployer) -> None:
    deployer.apply()
    with pytest.raises(DeployError, match="no earlier build"):
        rollback(deployer.client, "ada/code", say=deployer.said.append)


def test_a_free_account_is_told_both_ways_out_and_can_take_the_free_one(deployer: Deployer) -> None:
    deployer.token = FREE
    deployer.target = a_target(space="fred/code")
    with pytest.raises(DeployError) as stop:
        deployer.apply()
    assert stop.value.code == Exit.PLAN
    assert "PRO" in str(stop.value)
    assert "USD" in str(stop.value)
    assert "--hardware zero-a10g" in str(stop.value)
    assert deployer.hub.spaces == {}
    deployer.target = replace(deployer.target, hardware="zero-a10g")
    deployer.apply()
    files = deployer.space.files
    assert b"@spaces.GPU" in files["app.py"]
    assert b"python_version: 3.12.12" in files["README.md"]


@pytest.mark.parametrize(
    ("token", "owner", "sentence"),
    [(READ, "ada", "may only read"), (FREE, "team", "not in the organisation team")],
)
def test_a_token_that_cannot_do_it_is_told_before_anything_is_tried(deployer, token, owner, sentence) -> None:
    account = Hub(endpoint=deployer.hub.url, token=token).whoami()
    with pytest.raises(DeployError, match=sentence) as stop:
        may_deploy(account, owner)
    assert stop.value.code == Exit.TOKEN


def test_an_organisation_without_rights_is_said(deployer: Deployer) -> None:
    deployer.hub.users[WRITE].writes = ("ada",)
    try:
        deployer.target = a_target(space="team/code")
        with pytest.raises(DeployError, match=r"403.*organisation"):
            deployer.apply()
    finally:
        deployer.hub.users[WRITE].writes = ("ada", "team")


def test_an_address_that_is_not_https_gets_no_token(deployer: Deployer) -> None:
    deployer.hub.hosts["ada/code"] = "http://ada-code.example.org"
    try:
        with pytest.raises(DeployError, match="not https: no token is sent there"):
            deployer.apply()
    finally:
        deployer.hub.hosts.clear()
