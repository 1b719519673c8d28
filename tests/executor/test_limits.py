"""What a session may use: a limit that is hit ends the cell, names itself, and leaves the session usable."""

import asyncio
from pathlib import Path

import pytest

from executor import Executor, SandboxTooWeak
from executor.events import ViolationFound
from executor.sandbox.report import Layer, SandboxReport
from tests.executor.conftest import Caller
from tests.executor.crowd import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def session_of(executor):
    session = await executor.create_session(owner="alice")
    return Caller(executor, "alice", session.id)


async def test_memory_over_the_limit_ends_the_cell_with_figure_and_limit(make_settings):
    async with Executor(make_settings(session_memory_mb=256)) as executor:
        caller = await session_of(executor)
        await caller.run("echo kept > kept.txt", "bash")
        result = await caller.run(
            "import time\ndata = []\nfor _ in range(60): data.append(b'x' * 10**7); time.sleep(0.02)"
        )
        assert result.status in ("memory", "error")
        if result.status == "memory":
            assert "limit is 256 MiB" in result.notices[0]
        else:
            assert result.error.type == "MemoryError"
        result = await caller.run(
            "import subprocess, sys\n"
            "code = 'import time; d = bytearray(90 * 10**6); time.sleep(20)'\n"
            "many = [subprocess.Popen([sys.executable, '-c', code]) for _ in range(6)]\n"
            "for one in many: one.wait()"
        )
        assert result.status == "memory"
        assert "limit is 256 MiB" in result.notices[0]
        assert (await caller.run("cat kept.txt", "bash")).stdout == "kept\n"
        assert (await caller.run("print(1)")).stdout == "1\n"


async def test_node_out_of_heap_is_told_as_memory(make_settings):
    async with Executor(make_settings(session_memory_mb=256)) as executor:
        caller = await session_of(executor)
        result = await caller.run("const all = []; while (true) all.push(new Array(1000).fill({}))", "javascript")
        assert result.status == "memory"
        assert (await caller.run("1 + 1", "javascript")).status == "ok"


async def test_a_full_folder_ends_the_cell_and_can_be_emptied(make_settings):
    async with Executor(make_settings(session_disk_mb=8)) as executor:
        caller = await session_of(executor)
        result = await caller.run(
            "import os, time\n"
            "for n in range(100):\n    open(f'{n}.bin', 'wb').write(os.urandom(10**6)); time.sleep(0.05)",
            timeout=30,
        )
        assert result.status == "disk"
        assert "MiB" in result.notices[0] and "Delete" in result.notices[0]
        async with asyncio.timeout(20):
            # on a busy machine the next look at the folder may come before bash has deleted anything
            while (await caller.run("rm -f *.bin; echo emptied", "bash")).stdout != "emptied\n":
                pass
        assert (await caller.run("print(1)")).status == "ok"


async def test_a_fork_bomb_is_stopped_at_the_cap_and_the_session_goes_on(make_settings):
    async with Executor(make_settings(session_processes=20)) as executor:
        caller = await session_of(executor)
        events = []
        unsubscribe = executor.bus.subscribe(events.append)
        result = await caller.run("for i in $(seq 60); do sleep 30 & done; wait", "bash", timeout=3)
        assert result.status in ("timeout", "error")
        assert {violation.rule for violation in result.violations} == {"processes"}
        assert (await caller.run("print(1)")).stdout == "1\n"
        unsubscribe()
        assert [event.violation.layer for event in events if isinstance(event, ViolationFound)] == ["sandbox"]


async def test_over_the_budget_of_all_the_largest_session_gives_way(make_settings):
    async with Executor(make_settings(total_memory_mb=300, session_memory_mb=1024)) as executor:
        small, large = await session_of(executor), await session_of(executor)
        hold = (
            "import time\ndata = bytearray({}); data[::4096] = b'x' * len(data[::4096]); time.sleep(4); print('held')"
        )
        results = await asyncio.gather(
            small.run(hold.format(60 * 2**20), timeout=20), large.run(hold.format(280 * 2**20), timeout=20)
        )
        assert results[0].stdout == "held\n"
        assert results[1].status == "memory"
        assert "All sessions together" in results[1].notices[0]
        assert (await large.run("print(1)")).stdout == "1\n"


class WeakBackend:
    """A backend on a host that cannot hold code; nothing else of it may ever be called."""

    scratch = Path("/nonexistent")

    async def open(self, publish, make_room):
        return SandboxReport("weak", {"files": Layer(False, "The kernel has no Landlock.")})

    async def aclose(self):
        pass


async def test_on_a_weak_host_nothing_is_executed_unless_it_is_allowed(make_settings):
    async with Executor(make_settings(allow_weak_sandbox=False), backend=WeakBackend()) as executor:
        with pytest.raises(SandboxTooWeak, match=r"no Landlock.*ALLOW_WEAK_SANDBOX=1"):
            await executor.execute("1", language="python", owner="a")
        assert executor.policy_level == "off"
    async with Executor(make_settings(security_policy="auto"), backend=WeakBackend()) as executor:
        assert executor.policy_level == "strict"


async def test_what_the_policy_refuses_is_not_run_and_says_why(make_settings):
    async with Executor(make_settings(security_policy="strict")) as executor:
        caller = await session_of(executor)
        for code, language in [
            ("import os as o", "python"),
            ("from os import system", "python"),
            ('__import__("os")', "python"),
            ('import importlib\nimportlib.import_module("os")', "python"),
            ("\\rm x", "bash"),
            ("command rm x", "bash"),
            ("/bin/rm x", "bash"),
            ("echo $(rm x)", "bash"),
            ("echo x | xargs rm", "bash"),
            ("require('child_process')", "javascript"),
        ]:
            result = await caller.run(code, language)
            assert (result.status, result.return_code, bool(result.violations)) == ("blocked", 1, True), code
            assert result.violations[0].message and result.violations[0].line >= 1
        for code, language in [
            ("print(np.cos(0))", "python"),
            ("position = 1  # os is only a word here", "python"),
            ("echo add", "bash"),
            ("console.log('fs')", "javascript"),
        ]:
            assert (await caller.run(code, language)).status == "ok", code


async def test_what_a_session_holds_counts_also_after_short_cells_and_no_longer_when_it_has_let_go(make_settings):
    async with Executor(make_settings()) as executor:
        caller = await session_of(executor)
        used = executor._backend._budget._used
        held = "x = bytearray(100 << 20); x[::4096] = b'1' * len(x[::4096])"
        await caller.run("1")
        await until(lambda: used)
        (base,) = used.values()
        for code in (held, f"import time\n{held}\ntime.sleep(0.3)"):
            await caller.run(code)
            await until(lambda: max(used.values()) > base + (80 << 20))
            await caller.run("del x")
            await until(lambda: max(used.values()) < base + (40 << 20))


async def test_what_a_session_shares_with_the_zygote_is_charged_to_nobody(make_settings):
    async with Executor(make_settings(spare_sessions=0)) as executor:
        callers = [await session_of(executor) for _ in range(4)]
        used = executor._backend._budget._used
        for caller in callers:
            await caller.run("import numpy, pandas, matplotlib.pyplot; x = 1")
        await until(lambda: len(used) == len(callers))
        # each has about 80 MiB resident, and could give back a tenth of them
        assert max(used.values()) < 45 << 20, used
        assert min(used.values()) > 1 << 20, used
