"""Code in a live session: what lasts, what ends it, what is said about it."""

import asyncio
import json
import time

import psutil
import pytest

from executor import Displayed, ExecutionResult, Finished, InvalidRequest, OutputChunk
from executor.account import history_bytes, history_from
from executor.sessions import HISTORY_CODE

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_variables_last_in_python(caller):
    assert (await caller.run("x = 41")).success
    result = await caller.run("print(x + 1)")
    assert (result.status, result.stdout, result.return_code) == ("ok", "42\n", 0)


async def test_variables_last_in_javascript_and_const_can_be_declared_again(caller):
    assert (await caller.run("const a = 1", "javascript")).success
    assert (await caller.run("const a = 2; let b = await Promise.resolve(40)", "javascript")).success
    result = await caller.run("console.log(a + b)", "javascript")
    assert (result.status, result.stdout) == ("ok", "42\n")


async def test_directory_environment_and_functions_last_in_bash(caller):
    await caller.run("mkdir -p d && cd d && export WHO=me && hi() { echo hi $WHO; }", "bash")
    result = await caller.run("hi; basename $PWD; false", "bash")
    assert (result.stdout, result.return_code) == ("hi me\nd\n", 1)


async def test_the_three_languages_share_one_folder(caller):
    await caller.run("open('a.txt', 'w').write('from python')")
    await caller.run("require('fs').appendFileSync('a.txt', ' and node')", "javascript")
    assert (await caller.run("cat a.txt", "bash")).stdout == "from python and node"


async def test_an_error_is_data_and_what_came_before_it_stays(caller):
    result = await caller.run("y = 5\nprint('before')\n1 / 0")
    assert (result.status, result.return_code, result.stdout) == ("error", 1, "before\n")
    assert (result.error.type, result.error.line) == ("ZeroDivisionError", 3)
    assert (await caller.run("print(y)")).stdout == "5\n"


async def streamed(caller, first, rest):
    """The execution and events of a cell that does `rest` only once what `first` prints has streamed."""
    code = f"import os, time\n{first}\nwhile not os.path.exists('go'): time.sleep(0.01)\n{rest}"
    _, execution_id = await caller.executor.start_execution(
        code, language="python", owner="alice", session_id=caller.session_id, timeout=20
    )
    events = []
    async for event in caller.executor.attach(execution_id, session_id=caller.session_id, owner="alice"):
        if isinstance(event, OutputChunk) and not any(isinstance(former, OutputChunk) for former in events):
            await caller.put("go", b"")
        events.append(event)
    return execution_id, events


async def test_output_streams_while_the_cell_runs(caller):
    execution_id, events = await streamed(caller, "print('0')", "print('1')")
    assert [event.text for event in events if isinstance(event, OutputChunk)] == ["0\n", "1\n"]
    assert isinstance(events[-1], Finished) and events[-1].result.status == "ok"
    attached = caller.executor.attach(execution_id, session_id=caller.session_id, owner="alice")
    assert [event async for event in attached] == [events[-1]]


async def test_what_streams_streams_to_its_end(caller):
    _, events = await streamed(caller, "print('a')", "print('b'); time.sleep(0.01); print('c')")
    assert "".join(e.text for e in events if isinstance(e, OutputChunk)) == "a\nb\nc\n" == events[-1].result.stdout


async def test_followers_may_come_and_go(caller):
    _, execution_id = await caller.executor.start_execution(
        "import time; time.sleep(0.5); print('end')", language="python", owner="alice", session_id=caller.session_id
    )

    async def follow():
        return [e async for e in caller.executor.attach(execution_id, session_id=caller.session_id, owner="alice")]

    leaving = asyncio.create_task(follow())
    staying = asyncio.create_task(follow())
    await asyncio.sleep(0.1)
    leaving.cancel()
    assert (await staying)[-1].result.stdout == "end\n"


async def test_a_figure_comes_back_as_a_picture_and_as_a_file(caller):
    result = await caller.run("fig, axes = plt.subplots(2, 2)\naxes[0, 0].plot([1, 3, 2])\nfig.suptitle('four')")
    (output,) = [output for output in result.outputs if output.picture]
    assert len(output.picture.data) < 140_000
    assert output.picture.path in [info.path for info in result.files]
    data = await caller.get(output.picture.path)
    assert data.startswith(b"\x89PNG")


async def test_displays_arrive_in_order(caller):
    _, execution_id = await caller.executor.start_execution(
        "for n in range(3): display(n)\n'last'", language="python", owner="alice", session_id=caller.session_id
    )
    events = [e async for e in caller.executor.attach(execution_id, session_id=caller.session_id, owner="alice")]
    shown = [e.output.data["text/plain"] for e in events if isinstance(e, Displayed)]
    assert shown == ["0", "1", "2", "'last'"]
    assert [o.data["text/plain"] for o in events[-1].result.outputs] == shown
    assert [o.is_result for o in events[-1].result.outputs] == [False, False, False, True]


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "while True: pass"),
        ("python", "import time; time.sleep(999)"),
        ("javascript", "while(1){}"),
        ("javascript", "await new Promise(() => {})"),
        ("bash", "sleep 999 & wait"),
        ("bash", "while true; do :; done"),
    ],
)
async def test_a_timeout_stops_softly_and_keeps_variables(caller, language, code):
    set_up = {"python": "kept = 7", "javascript": "var kept = 7", "bash": "kept=7"}[language]
    show = {"python": "print(kept)", "javascript": "console.log(kept)", "bash": "echo $kept"}[language]
    await caller.run(set_up, language)
    began = time.monotonic()
    result = await caller.run(code, language, timeout=0.5)
    assert time.monotonic() - began < 10
    assert result.status == "timeout"
    assert "0.5 s" in result.notices[0] and "Variables are kept" in result.notices[0]
    assert (await caller.run(show, language)).stdout == "7\n"


@pytest.mark.parametrize(
    ("language", "code"),
    [
        (
            "python",
            "import signal, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: time.sleep(0.1)",
        ),
        ("python", "sum(range(10**13))"),
        ("bash", "trap '' INT; while true; do sleep 0.1; done"),
    ],
)
async def test_what_ignores_the_soft_stop_is_ended_hard_and_the_loss_is_named(caller, language, code):
    # long enough for the code to have said that it ignores the stop
    result = await caller.run(code, language, timeout=2)
    assert result.status == "timeout"
    assert any("did not stop by itself" in notice and "lost" in notice for notice in result.notices)
    show = {"python": "print('back')", "bash": "echo back"}[language]
    assert (await caller.run(show, language)).stdout.endswith("back\n")


@pytest.mark.parametrize(
    ("language", "code", "words"),
    [
        ("python", "import os; os._exit(3)", "exit code 3"),
        ("python", "import ctypes; ctypes.string_at(0)", "segmentation fault"),
        ("javascript", "process.exit(4)", "exit code 4"),
        ("javascript", "process.kill(process.pid, 'SIGKILL')", "signal 9"),
    ],
)
async def test_a_worker_that_dies_is_named_and_replaced_and_the_rest_goes_on(caller, language, code, words):
    await caller.run("kept=1; echo x > file.txt", "bash")
    result = await caller.run(code, language)
    assert result.status == "crashed"
    assert any(words in notice and "lost" in notice for notice in result.notices)
    show = {"python": "print(1+1)", "javascript": "console.log(1+1)"}[language]
    assert (await caller.run(show, language)).stdout == "2\n"
    assert (await caller.run("echo $kept; cat file.txt", "bash")).stdout == "1\nx\n"


async def test_exit_in_bash_gives_its_code_and_the_shell_comes_back(caller):
    result = await caller.run("echo bye; exit 3", "bash")
    assert (result.stdout, result.return_code) == ("bye\n", 3)
    assert any("restarted" in notice for notice in result.notices)
    assert (await caller.run("echo here", "bash")).stdout == "here\n"


async def test_a_cancelled_call_ends_the_code_and_keeps_the_session(caller):
    await caller.run("kept = 1")
    task = asyncio.create_task(caller.run("import time; time.sleep(999)"))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    began = time.monotonic()
    assert (await caller.run("print(kept)")).stdout == "1\n"
    assert time.monotonic() - began < 5
    assert (await caller.executor.history(caller.session_id, owner="alice"))[-2].result.status == "interrupted"


async def test_a_cancelled_call_leaves_no_process_of_its_own(caller):
    task = asyncio.create_task(caller.run("sleep 4242 & sleep 4243", "bash"))
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await caller.run("echo", "bash")
    commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert not [command for command in commands if command and command[-1] in ("4242", "4243")]


async def test_a_queued_call_that_is_cancelled_never_runs(caller):
    first = asyncio.create_task(caller.run("import os, time\nwhile not os.path.exists('go'): time.sleep(0.02)"))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(caller.run("ran = True"))
    await asyncio.sleep(0.1)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    await caller.put("go", b"")
    assert (await first).success
    assert (await caller.run("print('ran' in globals())")).stdout == "False\n"


async def test_calls_into_one_session_run_in_order_and_sessions_side_by_side(executor, caller):
    await caller.run("log = []")
    await asyncio.gather(*(caller.run(f"import time; time.sleep(0.02); log.append({n})") for n in range(10)))
    assert (await caller.run("print(log == list(range(10)))")).stdout == "True\n"
    sessions = [await executor.create_session(owner="bob") for _ in range(4)]
    began = time.monotonic()
    await asyncio.gather(
        *(
            executor.execute("import time; time.sleep(3)", language="python", owner="bob", session_id=s.id)
            for s in sessions
        )
    )
    assert time.monotonic() - began < 9
    for session in sessions:
        await executor.close_session(session.id, owner="bob")


async def test_background_output_goes_to_the_next_cell_and_is_marked(caller):
    assert (await caller.run("(sleep 0.3; echo late; : >over) & echo now", "bash")).stdout == "now\n"
    async with asyncio.timeout(15):
        while "over" not in await caller.files():
            await asyncio.sleep(0.05)
    result = await caller.run("echo next", "bash")
    assert "background" in result.stdout.splitlines()[0]
    assert result.stdout.splitlines()[1] == "late"
    assert result.stdout.endswith("next\n")


async def test_a_gigabyte_of_output_is_cut_and_the_next_call_works(caller):
    before = psutil.Process().memory_info().rss
    result = await caller.run("s = 'x' * 10**6\nfor _ in range(1000): print(s)", timeout=60)
    assert result.status in ("ok", "timeout")
    assert result.truncated and len(result.stdout) <= 10_000 and "cut: stdout had" in result.stdout
    assert psutil.Process().memory_info().rss - before < 50 * 2**20
    assert (await caller.run("print(1)")).stdout == "1\n"


async def test_binary_and_surrogates_on_stdout_are_text_in_the_result(caller):
    result = await caller.run(
        "import sys; sys.stdout.buffer.write(bytes(range(256))); sys.stdout.flush(); print('\\ud800')"
    )
    assert result.success and result.stdout.encode()


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"code": ""}, "empty"),
        ({"code": " \n\t"}, "empty"),
        ({"code": "x" * 1_000_001}, "at most 1,000,000"),
        ({"code": "a\0b"}, "NUL byte at position 1"),
        ({"code": "a = '\ud800'"}, "lone surrogate"),
        ({"code": "1", "language": "ruby"}, "python, javascript, bash"),
        ({"code": "1", "timeout": 0}, "seconds over 0"),
        ({"code": "1", "timeout": -1}, "seconds over 0"),
        ({"code": "1", "timeout": 1e9}, "up to 600"),
        ({"code": "1", "timeout": float("nan")}, "seconds over 0"),
        ({"code": "1", "timeout": "soon"}, "soon"),
        ({"code": "1", "timeout": True}, "seconds over 0"),
    ],
)
async def test_a_request_that_cannot_be_carried_out_gets_a_sentence(caller, kwargs, words):
    with pytest.raises(InvalidRequest, match=words):
        await caller.run(**kwargs)
    assert (await caller.run("print(1)")).stdout == "1\n"


async def test_history_remembers_code_and_outcome(caller):
    await caller.run("a = 1")
    await caller.run("plt.plot([1]); plt.show()")
    entries = await caller.executor.history(caller.session_id, owner="alice")
    assert [entry.code for entry in entries] == ["a = 1", "plt.plot([1]); plt.show()"]
    assert entries[1].result.outputs[0].picture.data == ""
    assert entries[1].result.outputs[0].picture.path


async def test_history_keeps_the_beginning_of_long_code_and_says_so(caller):
    code = "n = 1\n" + "# long\n" * 3_000
    await caller.run(code)
    await caller.run("n" * HISTORY_CODE + " = 1")
    await caller.run("#" * HISTORY_CODE)
    entries = await caller.executor.history(caller.session_id, owner="alice")
    assert [entry.code for entry in entries] == [code[:HISTORY_CODE], "n" * HISTORY_CODE, "#" * HISTORY_CODE]
    assert entries[0].cut == "Only the first 20,000 of 21,006 characters of this code were kept."
    assert [entry.whole_chars for entry in entries] == [21_006, 20_004, 0] and entries[2].cut == ""
    assert history_from(history_bytes(entries)) == entries


async def test_cut_code_in_a_history_that_was_stored_before_is_known_for_what_it_is():
    mark = "\n... cut: 21,006 characters in all ..."
    result = ExecutionResult(status="ok", session_id="s", execution_id="e", language="bash")
    codes = ["x" * HISTORY_CODE + mark, "x" * HISTORY_CODE, "echo" + mark]
    stored = [{"code": code, "language": "bash", "timestamp": 1.0, "result": result.to_json()} for code in codes]
    entries = history_from(json.dumps(stored).encode())
    assert [entry.code for entry in entries] == ["x" * HISTORY_CODE, "x" * HISTORY_CODE, "echo" + mark]
    assert [entry.whole_chars for entry in entries] == [21_006, 0, 0]


async def test_files_go_in_and_out_byte_for_byte(caller):
    data = bytes(range(256)) * 4096
    info = await caller.put("in/data.bin", data)
    assert (info.path, info.size) == ("in/data.bin", len(data))
    assert (await caller.run("d = open('in/data.bin', 'rb').read(); open('out.bin', 'wb').write(d[::-1])")).success
    assert await caller.get("out.bin") == data[::-1]
    assert await caller.get("out.bin", offset=10, length=5) == data[::-1][10:15]
    assert await caller.files() == ["in/data.bin", "out.bin"]
    await caller.executor.move_file(caller.session_id, "out.bin", "x/y.bin", owner="alice")
    await caller.executor.delete_file(caller.session_id, "in", owner="alice")
    assert await caller.files() == ["x/y.bin"]


async def test_what_a_cell_wrote_is_reported_once(caller):
    await caller.put("given.txt", b"1")
    result = await caller.run("open('new.txt', 'w').write('1')")
    assert [(info.path, info.size, info.change) for info in result.files] == [("new.txt", 1, "new")]
    result = await caller.run("open('new.txt', 'a').write('2')")
    assert [(info.path, info.size, info.change) for info in result.files] == [("new.txt", 2, "changed")]
    assert (await caller.run("1")).files == ()


async def test_the_environment_of_the_server_is_not_the_workers(caller):
    show = {
        "python": "import os; print(sorted(os.environ)); print(open('/proc/self/environ').read())",
        "javascript": "console.log(Object.keys(process.env))",
        "bash": "env; set",
    }
    for language, code in show.items():
        text = (await caller.run(code, language)).stdout
        assert "PYTEST_CURRENT_TEST" not in text
