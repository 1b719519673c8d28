"""The command line against the local Hub: what it prints, its exit codes, Ctrl+C, and no token anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.arguments import parser
from deploy.bundle import PROJECT
from deploy.cli import main
from deploy.errors import Exit
from tests.deploy.conftest import FAST, FREE, READ, SECRETS, WRITE
from tests.hub import Fault, LocalHub, Slow, Status
from tests.hub.space import LocalSpace

QUICK = ("--no-resolve", "--no-smoke")


@pytest.fixture
def run(hub: LocalHub, tmp_path: Path, capsys):
    """Run a command in this process; returns its exit code and what it printed."""
    settings = tmp_path / "deploy.toml"
    settings.write_text('space = "ada/code"\nsecrets = ["ACCESS_KEY"]\n[variables]\nMAX_SESSIONS = 4\n')

    def go(*command: str, token: str = WRITE, read: str = READ) -> tuple[int, str]:
        environ = {"HF_TOKEN": token, "LIBRECHAT_HF_TOKEN": read, **SECRETS}
        code = main([*command, "--config", str(settings)], environ, pace=FAST, endpoint=hub.url)
        out = capsys.readouterr()
        said = out.out + out.err
        assert not any(secret in said for secret in (token, read, *SECRETS.values()) if secret)
        return code, said

    return go


def test_bundle_needs_no_token_and_shows_what_would_travel(run, hub: LocalHub, tmp_path) -> None:
    code, said = run("bundle", "--write", str(tmp_path / "out"), token="")
    assert code == 0
    assert "space/app.py" in said
    assert "pip install -r requirements.txt 'gradio[oauth,mcp]==6.31.0'" in said
    assert (tmp_path / "out" / "app.py").exists()
    assert hub.record == []


def test_plan_changes_nothing_and_tells_price_and_sleep(run, hub: LocalHub) -> None:
    code, said = run("plan")
    assert code == 0
    assert "+ space ada/code (private, on cpu-basic)" in said
    assert "48 hours" in said
    assert "The Hub's price now" in said
    assert "+ secret ACCESS_KEY" in said
    assert hub.changes == []
    run("apply", *QUICK)
    assert "Nothing to change." in run("plan")[1]


def test_plan_names_what_is_no_setting(run, tmp_path) -> None:
    settings = tmp_path / "deploy.toml"
    settings.write_text(settings.read_text() + "SESSION_TTL = 7200\n")
    assert "note: SESSION_TTL is no setting" in run("plan")[1]
    assert "MAX_SESSIONS is no" not in run("plan")[1]


def test_apply_then_status_logs_restart_pause_and_destroy(run, hub: LocalHub, monkeypatch) -> None:
    code, said = run("apply", *QUICK)
    assert code == 0
    assert "type: sse" in said
    assert "--no-resolve" in said
    code, said = run("status")
    assert code == 0
    assert "private" in said
    assert "RUNNING" in said
    assert "Successfully installed everything" in run("logs", "--build")[1]
    assert "Running on" in run("logs", "--follow")[1]
    assert run("wait")[0] == 0
    assert "answers after" in run("wake")[1]
    assert run("pause")[0] == 0
    assert hub.spaces["ada/code"].stages[0] == "PAUSED"
    assert run("restart")[0] == 0
    monkeypatch.setattr("builtins.input", lambda _: "ada/other")
    code, said = run("destroy")
    assert code == Exit.USAGE
    assert "Not deleted" in said
    assert "ada/code" in hub.spaces
    assert run("destroy", "--yes-delete", "ada/code")[0] == 0
    assert hub.spaces == {}
    assert run("destroy")[0] == 0


def test_librechat_prints_and_writes(run, tmp_path) -> None:
    run("apply", *QUICK)
    folder = tmp_path / "librechat"
    code, said = run("librechat", "--write", str(folder), "--transport", "streamable-http", "--whole-file")
    assert code == 0
    assert "type: streamable-http" in said
    assert "X-Access-Key" in said
    assert "version: " in said
    assert (folder / "docker-compose.override.yml").exists()


def test_a_new_build_that_fails_is_taken_back_where_asked(run, hub: LocalHub, tmp_path) -> None:
    settings = tmp_path / "deploy.toml"
    run("apply", *QUICK)
    first = hub.spaces["ada/code"].files["BUILD"]
    settings.write_text('title = "Broken"\n' + settings.read_text())
    hub.spaces["ada/code"].build_script = ["BUILDING", "BUILD_ERROR"]

    def mended(space: LocalSpace) -> None:
        # the second commit from here on, which is the way back, builds again
        space.build_script = ["BUILDING", "RUNNING"]

    hub.builder = mended
    code, said = run("apply", *QUICK, "--rollback-on-failure")
    assert code == Exit.BUILD, said
    assert "The build before runs again" in said
    assert hub.spaces["ada/code"].files["BUILD"] == first
    assert hub.spaces["ada/code"].running.files["BUILD"] == first


@pytest.mark.parametrize(
    ("script", "read", "code"),
    [(["BUILDING", "PAUSED"], READ, Exit.PAUSED), (["BUILDING", "RUNNING"], FREE, Exit.WRONG_TOKEN)],
)
def test_a_build_that_is_not_at_fault_is_not_taken_back(run, hub: LocalHub, tmp_path, script, read, code) -> None:
    settings = tmp_path / "deploy.toml"
    run("apply", *QUICK)
    settings.write_text('title = "Another"\n' + settings.read_text())
    hub.spaces["ada/code"].build_script = script
    hub.forget()
    seen, said = run("apply", *QUICK, "--rollback-on-failure", read=read)
    assert seen == code, said
    assert len(hub.asked("commit")) == 1, "the new build alone"


def test_a_read_token_that_is_refused_is_said_before_anything_is_sent(run, hub: LocalHub) -> None:
    code, said = run("apply", *QUICK, read="hf_expired00000")
    assert code == Exit.TOKEN
    assert "does not accept LIBRECHAT_HF_TOKEN" in said
    assert "write access" not in said
    assert hub.changes == []


def test_logs_are_readable_and_can_be_filtered(run, hub: LocalHub) -> None:
    run("apply", *QUICK)
    hub.spaces["ada/code"].run_log = [
        '{"at":"2026-01-01T00:00:00.000Z","level":"info","event":"call","session":"abc123"}',
        '{"at":"2026-01-01T00:00:01.000Z","level":"error","event":"fault","where":"zygote"}',
    ]
    assert "2026-01-01 00:00:01.000 error    fault  where=zygote" in run("logs")[1]
    assert "call" not in run("logs", "--errors")[1]
    assert "fault" not in run("logs", "--session", "abc")[1]
    assert '"event":"call"' in run("logs", "--raw")[1]


def test_prometheus_gets_a_configuration_and_the_rules(run, tmp_path) -> None:
    run("apply", *QUICK)
    folder = tmp_path / "prometheus"
    code, said = run("prometheus", "--write", str(folder))
    assert code == 0
    assert "hf-token" in said
    assert "metrics_path" in (folder / "prometheus.yml").read_text()
    assert list((folder / "rules").glob("*.yml"))
    assert (folder / "prometheus.yml").stat().st_mode & 0o077 == 0


def test_a_prometheus_file_of_the_user_stays_and_one_of_ours_is_closed(run, tmp_path) -> None:
    path = tmp_path / "prometheus" / "prometheus.yml"
    command = ("prometheus", "--address", "https://a-b.hf.space", "--write", str(path.parent))
    assert run(*command)[0] == 0
    path.chmod(0o644)
    assert run(*command)[0] == 0
    assert path.stat().st_mode & 0o077 == 0
    path.write_text("global: {}\n")
    code, said = run(*command)
    assert code == Exit.USAGE
    assert "Move it away" in said
    assert path.read_text() == "global: {}\n"


@pytest.mark.parametrize(
    "command",
    [
        ("prometheus", "--address", "x"),
        ("prometheus", "--address", "https://a-b.hf.space", "--write", "/proc/none/here"),
        ("bundle", "--write", "/proc/none/here"),
        ("librechat", "--address", "https://a-b.hf.space", "--write", "/proc/none/here"),
    ],
)
def test_an_address_or_a_folder_that_cannot_be_is_a_sentence(run, tmp_path, monkeypatch, command) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run(*command)
    assert code == Exit.USAGE
    assert said.splitlines()[-1].startswith("error: ")
    assert list(tmp_path.glob("prometheus*")) == []


def test_wake_for_ever_outlives_a_bad_hour(run, hub: LocalHub, monkeypatch) -> None:
    run("apply", *QUICK)
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 1:
            hub.faults.clear()
        if len(slept) == 2:
            raise KeyboardInterrupt

    hub.forget()
    hub.faults.append(Fault("GET", "info", 1, Status(400), lasts=True))
    pace = replace(FAST, sleep=sleep)
    monkeypatch.setattr("tests.deploy.test_cli.FAST", pace)
    code, said = run("wake", "--every", "7")
    assert code == Exit.INTERRUPTED
    assert slept == [7.0, 7.0]
    assert "Knocking again in 7 s" in said
    assert "answers after" in said


def test_librechats_token_is_warned_about_where_it_can_write_or_is_missing(run) -> None:
    run("apply", *QUICK)
    assert "LIBRECHAT_HF_TOKEN is a token that may write" in run("doctor", read=WRITE)[1]
    assert "LIBRECHAT_HF_TOKEN is not set" in run("doctor", read="")[1]


def test_the_writing_token_never_reaches_the_app_in_plain_authorization(run, hub: LocalHub) -> None:
    run("apply", *QUICK, read="")
    visits = hub.asked("app")
    assert visits
    for visit in visits:
        assert "authorization" not in visit.headers
        assert visit.headers["x-hf-authorization"] == f"Bearer {WRITE}"


@pytest.mark.parametrize(
    ("command", "prepare", "code"),
    [
        (("apply", *QUICK), lambda hub: None, Exit.OK),
        (("apply", *QUICK, "--space", "a b"), lambda hub: None, Exit.USAGE),
        *(((name,), lambda hub: None, Exit.MISSING) for name in ("status", "smoke", "wake", "wait", "rollback")),
        (
            ("apply", *QUICK),
            lambda hub: hub.spaces.update({"ada/code": LocalSpace("ada/code", "gradio", False, "x")}),
            Exit.NAME,
        ),
        (
            ("apply", *QUICK),
            lambda hub: hub.faults.append(Fault("GET", "info", 1, Status(500), lasts=True)),
            Exit.HUB,
        ),
        (("apply", *QUICK), lambda hub: hub.faults.append(Fault("POST", "create", 1, Status(402))), Exit.PLAN),
        (("doctor",), lambda hub: None, Exit.MISSING),
    ],
)
def test_exit_codes_are_for_scripts(run, hub: LocalHub, command, prepare, code) -> None:
    prepare(hub)
    assert run(*command)[0] == code


def test_no_token_is_a_sentence(hub: LocalHub, tmp_path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "deploy", "status"],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HOME": str(tmp_path), "HF_ENDPOINT": hub.url},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == Exit.TOKEN
    assert "set HF_TOKEN" in result.stderr
    assert "Traceback" not in result.stderr


def test_no_option_takes_a_token() -> None:
    assert not any("token" in option for action in parser()._actions for option in action.option_strings)
    for name, command in parser()._subparsers._group_actions[0].choices.items():  # type: ignore[union-attr]
        assert not any("token" in option for a in command._actions for option in a.option_strings), name


@pytest.mark.parametrize("route", [("POST", "secrets", 1), ("POST", "commit", 1), ("GET", "runtime", 3)])
def test_ctrl_c_stops_with_a_sentence_and_the_next_apply_completes(
    hub: LocalHub, tmp_path: Path, still_tree, route
) -> None:
    settings = tmp_path / "deploy.toml"
    settings.write_text('space = "ada/code"\nsecrets = ["ACCESS_KEY"]\n')
    environ = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_ENDPOINT": hub.url, "HF_TOKEN": WRITE,
        "LIBRECHAT_HF_TOKEN": READ, **SECRETS,
    }  # fmt: skip

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "deploy", "apply", *QUICK, "--config", str(settings)],
            cwd=PROJECT,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    hub.faults.append(Fault(*route, Slow(1.0)))
    process = start()
    deadline = time.monotonic() + 60
    while not any(e.fault for e in hub.record):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == Exit.INTERRUPTED, out + err
    assert "Stopped." in err
    assert "Traceback" not in err
    hub.faults.clear()
    space = hub.spaces["ada/code"]
    # a short build: between two looks at it there are seconds
    space.build_script = ["BUILDING", "RUNNING"]
    if len(space.stages) > 2:
        space.stages = deque(space.build_script)
    process = start()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, out + err
    assert space.private
    assert space.secrets.keys() == {"ACCESS_KEY"}
    assert space.stages == deque(["RUNNING"])
