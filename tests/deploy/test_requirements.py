"""`requirements.txt`, and the platform's own pip call on it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from deploy.bundle import PROJECT
from deploy.config import Target
from deploy.errors import DeployError, Exit
from deploy.requirements import direct, platform_packages, requirements_txt, resolve, sdk_version

PYPROJECT = PROJECT / "pyproject.toml"


def test_direct_dependencies_in_ranges_without_gradio_and_development_tools() -> None:
    lines = requirements_txt(PYPROJECT, Target()).splitlines()
    names = {Requirement(line).name for line in lines}
    assert names == {r.name for r in direct(PYPROJECT)} - {"gradio"}
    assert not names & {"pytest", "ruff", "mypy", "playwright", "jupyter-client"}
    for line in lines:
        operators = {s.operator for s in Requirement(line).specifier}
        assert operators == {">=", "<"}, f"{line} is no range"


def test_extra_packages_come_last_and_gradio_cannot_be_among_them() -> None:
    assert requirements_txt(PYPROJECT, Target(extra_pip=("polars>=1",))).splitlines()[-1] == "polars>=1"
    for bad in ("gradio==5.0", "x @ https://example.org/x.whl", "not a requirement!"):
        with pytest.raises(DeployError, match="extra_pip"):
            requirements_txt(PYPROJECT, Target(extra_pip=(bad,)))


def test_gradio_is_the_lower_bound_of_its_range_exactly(tmp_path) -> None:
    assert sdk_version(PYPROJECT) == "6.31.0"
    assert "gradio[oauth,mcp]==6.31.0" in platform_packages(sdk_version(PYPROJECT), zero_gpu=False)
    other = tmp_path / "pyproject.toml"
    other.write_text('[project]\ndependencies = ["mcp"]\n')
    with pytest.raises(DeployError, match="no lowest gradio version"):
        sdk_version(other)


@pytest.mark.timeout(600)
def test_a_set_that_the_builder_could_not_install_is_refused_with_pips_reason() -> None:
    with pytest.raises(DeployError, match=r"could not install this set.*mcp.*nothing was uploaded") as stop:
        resolve("mcp>=2\n", sdk="6.31.0", python_version="3.11", zero_gpu=False)
    assert stop.value.code == Exit.BUILD


@pytest.mark.timeout(600)
def test_a_set_is_resolved_for_another_python_than_this_one() -> None:
    found = resolve("structlog>=25,<27\n", sdk="6.31.0", python_version="3.12.12", zero_gpu=False)
    assert found.packages["gradio"] == "6.31.0"
    assert "structlog" in found.packages
    assert "for Python 3.12" in found.note


def test_pip_builds_nothing_and_gets_no_token_and_no_secret(monkeypatch) -> None:
    given: dict[str, object] = {}

    def run(command: list[str], **wanted: object) -> subprocess.CompletedProcess[str]:
        given.update(wanted, command=command)
        return subprocess.CompletedProcess(command, 1, "", "ERROR: told to fail")

    for name in ("HF_TOKEN", "LIBRECHAT_HF_TOKEN", "ACCESS_KEY", "PIP_INDEX_URL"):
        monkeypatch.setenv(name, "kept-secret")
    monkeypatch.setattr(subprocess, "run", run)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    with pytest.raises(DeployError, match="--no-resolve"):
        resolve("mcp\n", sdk="6.31.0", python_version=version, zero_gpu=False, withheld=["ACCESS_KEY"])
    assert "--only-binary=:all:" in given["command"]
    assert [name for name, value in given["env"].items() if value == "kept-secret"] == ["PIP_INDEX_URL"]
