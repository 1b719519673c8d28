"""What a session has installed counts as installed after its server was stopped and another one started."""

import pytest

from executor import Executor
from tests.executor.packages.indexes import wheel

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_packages_of_before_a_restart_stay_beside_those_of_after_it(settings, index):
    wheel(index, "former", "1.0")
    wheel(index, "former", "2.0")
    wheel(index, "latter")
    a = {"owner": "a", "conversation": "1"}
    chosen = settings()
    async with Executor(chosen) as executor:
        report = await executor.install_packages(["former<2"], language="python", **a)
        assert report.success
    async with Executor(chosen) as executor:
        report = await executor.install_packages(["latter"], language="python", **a)
        assert [package.name for package in report.installed] == ["latter"]
        result = await executor.execute("import former, latter; print(former.version)", language="python", **a)
        assert result.stdout == "1.0\n", result
        report = await executor.install_packages(["former==2"], language="python", **a)
        assert [(package.name, package.replaced) for package in report.installed] == [("former", "1.0")]
