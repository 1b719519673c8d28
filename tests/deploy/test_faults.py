"""A fault at each request of `apply` in turn: never public, nothing leaked, a sentence, and the next one completes."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest

from deploy.apply import apply
from deploy.bundle import Bundle, collect
from deploy.errors import DeployError, Exit
from deploy.hub import Hub
from deploy.retries import Pace
from tests.deploy.conftest import FAST, SECRETS, WRITE, a_target
from tests.deploy.invariants import nothing_leaked
from tests.hub import Cut, Fault, LocalHub, Slow, Status
from tests.hub.faults import Deed

TARGET = a_target()
IMPATIENT = replace(FAST, request_timeout=0.15, tries=1)  # every try has to time out

# what goes wrong, whether it goes on going wrong, and what the sentence must say
FAULTS: dict[str, tuple[Deed, bool, str]] = {
    "401": (Status(401, {"x-error-message": "Invalid credentials in Authorization header"}), False, r"token.*HF_TOKEN"),
    "402": (Status(402), False, r"Two ways out.*--hardware zero-a10g"),
    "403": (Status(403), False, r"token may not.*write access"),
    "404": (Status(404), False, r"404|does not (know|show)"),
    "repository gone": (
        Status(404, {"x-error-code": "RepoNotFound"}),
        False,
        r"404|does not (know|show)|name is taken",
    ),
    "409": (Status(409), False, r"409.*another name|run apply again"),
    "429": (Status(429, {"retry-after": "0"}), True, r"429.*Wait"),
    "500": (Status(500), True, r"fault of its own \(500\).*again"),
    "503": (Status(503), True, r"fault of its own \(503\).*again"),
    "cut before": (Cut("before"), True, r"connection.*broke.*again"),
    "cut in the middle": (Cut("middle"), True, r"connection.*broke.*again"),
    "cut after": (Cut("after"), True, r"connection.*broke.*again"),
    "slow": (Slow(0.5), True, r"did not answer in time.*again"),
}


@pytest.fixture(scope="module")
def bundle(still_tree) -> Bundle:
    return collect(TARGET, project=still_tree)


@pytest.fixture(autouse=True)
def _no_waiting_inside_the_library(monkeypatch) -> None:
    # huggingface_hub repeats the preupload request by itself, with pauses of its own; and a cheap fingerprint will do
    monkeypatch.setattr("deploy.state.SCRYPT_COST", 2)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)


def attempt(hub: LocalHub, bundle: Bundle, pace: Pace = FAST) -> DeployError | None:
    client = Hub(endpoint=hub.url, token=WRITE, hardware=TARGET.hardware, pace=pace)
    try:
        client.whoami()
        apply(client, TARGET, bundle, say=lambda _: None)
    except DeployError as error:
        return error
    return None


def older(hub: LocalHub, bundle: Bundle) -> None:
    """A Space of ours from before: an old secret, an old variable, a file that has gone, and other contents."""
    was = Bundle({**bundle.files, "executor/gone.py": b"", "BUILD": b"000000000000\n", "app.py": b"old\n"})
    client = Hub(endpoint=hub.url, token=WRITE, hardware=TARGET.hardware, pace=FAST)
    old = a_target(
        variables={"MAX_SESSIONS": "4", "TOOLS": "get_system_info"}, secrets={"ACCESS_KEY": "old-key", "ADMIN_KEY": "a"}
    )
    apply(client, old, was, say=lambda _: None)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("scenario", ["on an empty Hub", "onto an older build"])
def test_a_fault_at_each_request_in_turn_leaks_nothing_and_is_completed_by_the_next_apply(
    hub: LocalHub, bundle: Bundle, fault: str, scenario: str
) -> None:
    deed, lasts, sentence = FAULTS[fault]

    hub.reset()
    if scenario == "onto an older build":
        older(hub, bundle)
    before = deepcopy(hub.spaces)

    def fresh() -> None:
        hub.reset()
        hub.spaces.update(deepcopy(before))

    fresh()
    assert attempt(hub, bundle) is None
    keys = [exchange.key for exchange in hub.record]
    assert len(keys) >= 17
    told = set()
    for method, route, number in keys:
        fresh()
        hub.faults.append(Fault(method, route, number, deed, lasts))
        error = attempt(hub, bundle, IMPATIENT if isinstance(deed, Slow) else FAST)
        where = f"{fault} at {method} {route} #{number}"
        if error is not None:
            told.add(route)
            text = str(error)
            assert re.search(sentence, text, re.DOTALL), f"{where}: {text}"
            assert not any(secret in text for secret in (WRITE, *SECRETS.values())), where
            assert "Traceback" not in text
        nothing_leaked(hub, SECRETS, (WRITE,))
        hub.faults.clear()
        assert attempt(hub, bundle) is None, where
        nothing_leaked(hub, SECRETS, (WRITE,))
        space = hub.spaces[TARGET.space]
        assert {k: v["value"] for k, v in space.secrets.items()} == SECRETS, where
        assert {path: space.files[path] for path in bundle.files} == bundle.files, where
        assert "executor/gone.py" not in space.files, where
        assert len([c for c in space.commits if bundle.build_id in c.title]) == 1, f"{where}: committed twice"
    assert told, "the fault was never noticed"


@pytest.mark.parametrize(
    "deed", [Status(503), Status(500), Cut("before"), Cut("after"), Status(429, {"retry-after": "0"})]
)
def test_one_passing_fault_at_any_request_is_not_even_noticed(hub: LocalHub, bundle: Bundle, deed: Deed) -> None:
    assert attempt(hub, bundle) is None
    for method, route, number in [exchange.key for exchange in hub.record]:
        hub.reset()
        hub.faults.append(Fault(method, route, number, deed))
        assert attempt(hub, bundle) is None, f"{deed} at {method} {route} #{number}"
        assert len(hub.spaces[TARGET.space].commits) == 2


def test_a_wait_that_the_hub_asks_for_is_kept(hub: LocalHub) -> None:
    waited: list[float] = []
    pace = Pace(sleep=waited.append)
    hub.faults.append(Fault("GET", "whoami", 1, Status(429, {"retry-after": "7"})))
    Hub(endpoint=hub.url, token=WRITE, pace=pace).whoami()
    assert waited == [7.0]


CONFLICT = Status(409, message="Cannot create repo: another conflicting operation is in progress. Retry later.")


def test_a_conflict_that_passes_while_the_space_is_created_is_waited_out(hub: LocalHub, bundle: Bundle) -> None:
    hub.faults += [Fault("POST", "create", number, CONFLICT) for number in (1, 2)]
    waited: list[float] = []
    assert attempt(hub, bundle, replace(FAST, first_pause=1.0, longest_pause=8.0, sleep=waited.append)) is None
    assert waited == [1.0, 2.0], "huggingface_hub itself repeats it without a pause"
    assert hub.spaces[TARGET.space].private


def test_a_conflict_that_lasts_ends_with_a_sentence_after_some_tries(hub: LocalHub, bundle: Bundle) -> None:
    hub.faults.append(Fault("POST", "create", 1, CONFLICT, lasts=True))
    error = attempt(hub, bundle)
    assert error is not None and error.code == Exit.HUB
    assert re.search(r"still busy with another change.*409.*creating.*Wait a minute.*again", str(error))
    assert len(hub.asked("create")) == FAST.tries
    assert hub.spaces == {}


def test_a_step_ends_at_its_deadline_though_tries_are_left(hub: LocalHub, monkeypatch) -> None:
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("deploy.retries.time", SimpleNamespace(monotonic=lambda: now))
    hub.faults.append(Fault("POST", "create", 1, CONFLICT, lasts=True))
    pace = replace(FAST, tries=10_000, first_pause=1.0, longest_pause=1.0, step_timeout=20.0, sleep=sleep)
    with pytest.raises(DeployError, match="another change"):
        Hub(endpoint=hub.url, token=WRITE, pace=pace).create(TARGET.space)
    assert len(hub.asked("create")) == 21


def test_a_wait_longer_than_the_step_may_take_is_not_begun(hub: LocalHub) -> None:
    hub.faults.append(Fault("GET", "whoami", 1, Status(429, {"retry-after": "100"}), lasts=True))
    waited: list[float] = []
    with pytest.raises(DeployError, match="Wait 100 seconds"):
        Hub(endpoint=hub.url, token=WRITE, pace=Pace(sleep=waited.append, step_timeout=60.0)).whoami()
    assert waited == []


def test_what_cannot_succeed_is_not_tried_again(hub: LocalHub) -> None:
    hub.faults.append(Fault("GET", "whoami", 1, Status(403), lasts=True))
    with pytest.raises(DeployError):
        Hub(endpoint=hub.url, token=WRITE, pace=FAST).whoami()
    assert len(hub.record) == 1
