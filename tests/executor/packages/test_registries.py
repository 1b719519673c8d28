"""The public registries as this machine reaches them; where it does not, these are skipped with a line that says so."""

import subprocess
import sys

import pytest

from tests.executor.packages.test_python import install, reasons, value, versions

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module", autouse=True)
def reachable():
    command = [sys.executable, "-m", "pip", "index", "versions", "six", "--retries", "0", "--timeout", "10"]
    if subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0:
        pytest.skip("no package index is reachable from here: set pip up (pip config) to run these")


async def test_a_wheel_of_the_public_index_is_installed_and_one_to_be_built_is_not(caller):
    report = await install(caller, "six", "docopt==0.6.2", "nosuchpackage-qqqz")
    assert "six" in versions(report.installed) or "six" in versions(report.present)
    assert "source that has to be built" in reasons(report)["docopt==0.6.2"] or "no such version" in str(report)
    assert "no package called nosuchpackage-qqqz" in reasons(report)["nosuchpackage-qqqz"]
    assert await value(caller, "__import__('six').PY3") == "True"


async def test_a_package_over_the_limit_is_refused_before_it_is_there(make_settings):
    from tests.executor.packages.test_python import started

    async with started(make_settings, package_max_mb=10) as (_, _, install):
        report = await install("polars")
        assert "at most 10 MB of packages may be installed" in reasons(report)["polars"]


async def test_a_javascript_package_of_the_public_registry_is_installed(caller):
    report = await caller.executor.install_packages(
        ["is-number@7.0.0"], language="javascript", owner=caller.owner, session_id=caller.session_id
    )
    if any("cannot be reached" in refusal.reason for refusal in report.refused):
        pytest.skip("no npm registry is reachable from here: set npm up (npm config) to run this")
    assert versions(report.installed) == {"is-number": "7.0.0"}
    result = await caller.run("require('is-number')('3')", "javascript")
    assert result.outputs[0].data["text/plain"] == "true"
