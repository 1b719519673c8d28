"""What holds for every test: in CI nothing may be skipped."""

import os

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test is a hole that nobody sees: fail instead."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if os.environ.get("CI") and skipped and exitstatus == 0:
        print(f"\n{skipped} tests were skipped; in CI every test must run (see .ci/run)")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
