"""What a Python session holds survives parking inside the real sandbox, too, where neither copy nor trial is free."""

from state_kinds import KEPT, LOST

from executor import Executor


async def test_each_kind_comes_back_or_is_named_after_parking_in_the_sandbox(settings):
    async with Executor(settings(max_sessions=1)) as executor:
        a = {"owner": "a", "conversation": "1"}
        refused = set()
        for name, (code, _) in (KEPT | LOST).items():
            result = await executor.execute(code or "1", language="python", **a)
            if not result.success:
                refused.add(name)  # what a sandbox does not let be made, such as a pool's processes
        assert not refused & set(KEPT)
        await executor.execute("1", language="python", owner="b")
        (session,) = executor.list_sessions(**a)
        assert session.state == "parked"
        checks = {name: check for name, (_, check) in KEPT.items()}
        code = (
            f"_wrong = []\nfor _name, _check in {checks!r}.items():\n    try:\n        _right = eval(_check)\n"
            "    except Exception as _error:\n        _right = False\n        print(repr(_error))\n"
            "    if not _right:\n        _wrong.append(_name)\nprint(_wrong)"
        )
        assert (await executor.execute(code, language="python", **a)).stdout == "[]\n"
        there = await executor.execute(f"print([n for n in {list(LOST)} if n in globals()])", language="python", **a)
        assert there.stdout == "[]\n"


async def test_where_no_further_process_is_allowed_the_worker_saves_by_itself(settings):
    async with Executor(settings(max_sessions=1, session_processes=4)) as executor:
        a = {"owner": "a", "conversation": "1"}
        started = "import subprocess\np = [subprocess.Popen(['sleep', '100']) for _ in range(3)]\n"
        started += "kept = [1]\nalias = kept"
        assert (await executor.execute(started, language="python", **a)).success
        await executor.execute("1", language="python", owner="b")
        result = await executor.execute("print(kept, alias is kept)", language="python", **a)
        assert result.stdout == "[1] True\n"
