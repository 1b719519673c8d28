"""What holds for every test: in CI nothing may be skipped."""

import contextlib
import os
import signal

import pytest


def pytest_configure() -> None:
    """What the caller of the tests left open must not reach the processes that the tests start and look into."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2:
            with contextlib.suppress(OSError):
                os.set_inheritable(fd, False)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # so a shell starts what it puts into the background, and every process that tests interrupt would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test is a hole that nobody sees: fail instead."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = len(reporter.stats.get("skipped", [])) if reporter else 0
    if os.environ.get("CI") and skipped and exitstatus == 0:
        print(f"\n{skipped} tests were skipped; in CI every test must run (see .ci/run)")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
