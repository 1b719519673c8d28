"""A local Hub, a copy of the tree to deploy, and a deployer that never waits."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deploy.apply import Applied, apply
from deploy.bundle import PACKAGES, PROJECT, Bundle, collect
from deploy.config import Target
from deploy.hub import Hub
from deploy.plan import Plan
from deploy.requirements import sdk_version
from deploy.retries import Pace
from tests.deploy.environment import space_environment
from tests.hub import LocalHub

WRITE, READ, FREE = "hf_writetoken00", "hf_readtoken000", "hf_freetoken000"
SECRETS = {"ACCESS_KEY": "Correct-horse-battery", "LOG_SALT": "staple-with-salt"}
FAST = Pace(first_pause=0.0, longest_pause=0.0, poll=0.0, settle=0.05, start_timeout=10.0, request_timeout=5.0)


@pytest.fixture(scope="session")
def one_hub() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        yield hub


@pytest.fixture
def hub(one_hub: LocalHub) -> LocalHub:
    """The local Hub, empty."""
    one_hub.reset()
    return one_hub


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the project that a test may change."""
    return copy_tree(tmp_path / "project")


def copy_tree(place: Path) -> Path:
    place.mkdir()
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, place / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(PROJECT / name, place / name)
    return place


@pytest.fixture(scope="session")
def still_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project as it is now, for tests that change nothing in it."""
    return copy_tree(tmp_path_factory.mktemp("still") / "project")


def a_target(**changes: object) -> Target:
    wanted: dict[str, object] = {
        "space": "ada/code",
        "variables": {"MAX_SESSIONS": "5", "EXECUTION_TIMEOUT": "20"},
        "secrets": SECRETS,
    }
    return Target(**{**wanted, **changes})  # type: ignore[arg-type]


@dataclass
class Deployer:
    """Runs `apply` against the local Hub, as the command line does."""

    hub: LocalHub
    project: Path
    target: Target = field(default_factory=a_target)
    token: str = WRITE
    pace: Pace = FAST
    said: list[str] = field(default_factory=list)

    @property
    def client(self) -> Hub:
        return Hub(endpoint=self.hub.url, token=self.token, hardware=self.target.hardware, pace=self.pace)

    @property
    def bundle(self) -> Bundle:
        return collect(self.target, project=self.project)

    def apply(self, **flags: bool) -> Applied:
        return apply(self.client, self.target, self.bundle, say=self.said.append, **flags)

    def plan(self) -> Plan:
        from deploy.apply import survey

        return survey(self.client, self.target, self.bundle)[1]

    @property
    def space(self):
        return self.hub.spaces[self.target.space]


@pytest.fixture
def deployer(hub: LocalHub, still_tree: Path) -> Deployer:
    return Deployer(hub, still_tree)


@pytest.fixture
def make_deployer(hub: LocalHub) -> Callable[..., Deployer]:
    return lambda project, **wanted: Deployer(hub, project, **wanted)


@pytest.fixture(scope="session")
def python(request: pytest.FixtureRequest) -> Path:
    """The `python` of the environment that a Space's builder makes; made once and kept in pytest's cache."""
    target = Target()
    return space_environment(
        request.config.cache.mkdir("space-environments"),
        collect(target).files["requirements.txt"].decode(),
        sdk=sdk_version(PROJECT / "pyproject.toml"),
        version=target.python_version,
    )
