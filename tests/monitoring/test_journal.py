"""Journal: what an operator finds in the log, and what never gets there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable

import pytest

from executor import events
from monitoring import pseudonyms
from monitoring.pseudonyms import Pseudonyms
from tests.monitoring.conftest import SALT, Watched
from tests.monitoring.script import CODE, called, closed, execution, finished, opened, started, violated


def test_an_execution_is_one_line_with_its_call_its_owner_and_its_codes_hash(watched: Watched) -> None:
    watched.say(opened(), *execution(1))
    [_, line] = watched.lines()
    assert line == {
        "at": line["at"],
        "level": "info",
        "event": "execution",
        "request_id": "request-00000001",
        "tool": "execute_python_code",
        "execution_id": "execution-00000001",
        "session": Pseudonyms(SALT).of("session-0"),
        "owner": Pseudonyms(SALT).of("owner-0"),
        "language": "python",
        "status": "ok",
        "seconds": 0.004,
        "stdout_chars": 120,
        "code_chars": len(CODE),
        "code_sha256": hashlib.sha256(CODE.encode()).hexdigest(),
    }


def test_neither_owners_nor_sessions_nor_code_can_be_read_from_the_log(watched: Watched) -> None:
    watched.say(opened(session_id="a-session-id", owner="a-user-id"))
    for number, status in enumerate(("ok", "error", "timeout", "crashed", "lost")):
        watched.say(*execution(number, session_id="a-session-id", owner="a-user-id", status=status))
    watched.say(
        violated(owner="a-user-id"),
        called(outcome="fault", session_id="a-session-id", owner="a-user-id"),
        events.FileTransferred(session_id="a-session-id", owner="a-user-id", action="put", size=3),
        events.Fault(where="close", detail="session a-session-id did not close"),
        closed(session_id="a-session-id", owner="a-user-id"),
    )
    text = watched.out.getvalue()
    assert len(watched.lines()) == 11
    for hidden in ("a-session-id", "a-user-id", "numpy", "subprocess.run"):
        assert hidden not in text


def test_code_is_logged_where_the_operator_wants_it_but_not_the_secrets_in_it(watch: Callable[..., Watched]) -> None:
    watched = watch(log_code=True, access_key="door-key-1")
    watched.say(opened(), *execution(1, code='print("hello", "door-key-1")'), violated())
    [line] = watched.lines("execution")
    assert line["code"] == 'print("hello", "[redacted]")'
    assert watched.lines("violation")[0]["message"] == "subprocess.run is not allowed here"


def test_an_execution_whose_session_died_under_it_still_tells_its_code(watched: Watched) -> None:
    watched.say(opened(), started(1), closed(reason="failed"), finished(1, status="lost"))
    [line] = watched.lines("execution")
    assert (line["level"], line["status"], line["code_chars"]) == ("warning", "lost", len(CODE))


def test_a_call_that_ran_no_code_or_failed_has_a_line_of_its_own(watched: Watched) -> None:
    watched.say(
        called(tool="list_files", request_id="r1"),
        called(tool="execute_python_code", request_id="r2", outcome="error"),
        called(tool="upload_file", request_id="r3", outcome="fault"),
        called(tool="list_files", request_id="r4", identified=False),
    )
    said = watched.lines("call")
    assert [(line["tool"], line["outcome"], line["level"]) for line in said] == [
        ("list_files", "ok", "info"),
        ("execute_python_code", "error", "info"),
        ("upload_file", "fault", "error"),
        ("list_files", "ok", "info"),
    ]
    assert [line.get("unidentified") for line in said] == [None, None, None, True]


def test_the_call_of_an_execution_has_a_line_only_where_it_ended_otherwise(watched: Watched) -> None:
    watched.say(opened(), *execution(1), *execution(2, status="error"))
    assert watched.lines("call") == []
    for outcome in ("error", "cancelled", "fault"):
        watched.say(*list(execution(3))[:2], called(request_id="request-00000003", outcome=outcome))  # type: ignore[arg-type]
    assert [line["outcome"] for line in watched.lines("call")] == ["cancelled", "fault"]


def test_what_needs_a_look_is_a_warning_or_an_error(watched: Watched) -> None:
    watched.say(
        events.BackendStarted(seconds=1.5),
        events.BackendStarted(seconds=2.5, restart=True),
        events.SandboxProbed(level="weak", layers={"landlock": (False, "the kernel is too old")}),
        opened(),
        violated(),
        events.WorkerReplaced(session_id="session-0", owner="owner-0", language="bash", cause="signal 9 (killed)"),
        events.Fault(where="zygote", detail="it died"),
        events.AccessRefused(reason="key", path="/metrics"),
        events.ConnectionChanged(transport="sse", open=True),
        closed(reason="failed"),
    )
    assert [(line["event"], line["level"]) for line in watched.lines()] == [
        ("backend", "info"),
        ("backend", "error"),
        ("sandbox", "warning"),
        ("session opened", "info"),
        ("violation", "warning"),
        ("worker replaced", "warning"),
        ("fault", "error"),
        ("access refused", "warning"),
        ("connection opened", "info"),
        ("session closed", "warning"),
    ]
    assert watched.lines("sandbox")[0]["missing"] == "landlock: the kernel is too old"


def test_a_server_that_stops_names_every_session_that_was_not_saved(watched: Watched) -> None:
    sessions = [f"a-session-{number:02}" for number in range(30)]
    watched.say(*(opened(session_id=session) for session in sessions))
    watched.say(*(events.Fault(where="shutdown", detail=f"session {session} was not saved") for session in sessions))
    watched.say(*(events.Fault(where="sweep", detail="again") for _ in range(30)))
    named = [line["detail"] for line in watched.lines("fault") if line["where"] == "shutdown"]
    assert named == [f"session {watched.of(session)} was not saved" for session in sessions]
    assert len(watched.lines("fault")) == 40


def test_a_burst_of_violations_is_counted_per_owner_and_rule(watched: Watched) -> None:
    watched.say(
        *(violated(owner="one") for _ in range(200)), violated(owner="two"), violated(owner="one", rule="other-rule")
    )
    watched.monitoring.close()
    watched.handler.close()
    assert len(watched.lines("violation")) == 12
    [repeated] = watched.lines("repeated")
    assert repeated["times"] == 190
    assert repeated["of"] == f"violation {watched.of('one')} process-spawn policy"


def test_ordinary_executions_are_never_held_back(watched: Watched) -> None:
    watched.say(opened())
    for number in range(250):
        watched.say(*execution(number))
    assert len(watched.lines("execution")) == 250


def test_a_day_of_logs_at_one_execution_a_second_is_under_60_megabytes(watched: Watched) -> None:
    """Every session serves 50 calls, every tenth call has an error, a picture or a violation to tell of."""
    count = 300
    for number in range(count):
        session, owner = f"{number // 50:022}", f"{number // 50:024}"
        if number % 50 == 0:
            watched.say(opened(session_id=session, owner=owner))
        watched.say(*execution(number, session_id=session, owner=owner, status="error" if number % 10 == 3 else "ok"))
        if number % 10 == 5:
            watched.say(violated(owner=owner), called(tool="list_files", request_id=f"more-{number}", owner=owner))
        if number % 50 == 49:
            watched.say(closed(session_id=session, owner=owner))
    each = len(watched.out.getvalue().encode()) / count
    assert len(watched.lines("execution")) == count
    assert each * 86_400 < 60e6, f"{each:.0f} bytes an execution"


def test_pseudonyms_stay_with_a_salt_and_change_without_one() -> None:
    assert Pseudonyms("s").of("alice") == Pseudonyms("s").of("alice") != Pseudonyms("t").of("alice")
    assert Pseudonyms().of("alice") != Pseudonyms().of("alice")
    assert len(Pseudonyms("s").of("alice")) == 12
    assert Pseudonyms("s").of("") == ""


def test_an_operator_can_look_a_user_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LOG_SALT", SALT)
    assert pseudonyms.main(["alice", "bob"]) == 0
    assert capsys.readouterr().out == f"{Pseudonyms(SALT).of('alice')}  alice\n{Pseudonyms(SALT).of('bob')}  bob\n"
    monkeypatch.delenv("LOG_SALT")
    assert pseudonyms.main(["alice"]) == 2
    assert "LOG_SALT" in capsys.readouterr().err


def test_every_line_is_json_whatever_outsiders_put_into_it(watched: Watched) -> None:
    ugly = "\x00\x1b[31m\n\"}\\ \u2028 \U0001f600 ' token=abcdef"
    watched.say(
        events.AccessRefused(reason="host", path=ugly),
        called(tool=ugly, request_id="r"),
        violated(rule=ugly),
        events.Fault(where=ugly, detail=ugly),
    )
    assert len([json.loads(line) for line in watched.out.getvalue().split("\n")[:-1]]) == 4
