"""Workers that send what they must not, or too much of it: the session and all others go on."""

import asyncio

import pytest

from executor import Executor

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_value_that_nests_too_deep_is_shown_as_text_and_harms_nothing(caller):
    deep = "from IPython.display import JSON\nd = 1\nfor _ in range({}): d = [d]\ndisplay(JSON({{'d': d}}))"
    for levels in (40, 70, 400):
        result = await caller.run(deep.format(levels))
        assert result.status in ("ok", "error")
        assert (await caller.run("print(1)")).stdout == "1\n"


@pytest.mark.parametrize(
    ("language", "code"),
    [
        (
            "python",
            "from IPython.display import HTML, display\nfor i in range(2): display(HTML('ж' * 1_500_000 + str(i)))",
        ),
        ("javascript", "display({'text/html': 'я'.repeat(3e6)})"),
        ("javascript", "display({'text/html': '😀'.repeat(1e6)}); display({'text/html': '😀'.repeat(1e6)})"),
    ],
)
async def test_displays_that_take_more_in_a_frame_than_they_have_characters_are_dropped(caller, language, code):
    await caller.run("x = 1", language)
    result = await caller.run(code, language)
    assert (result.status, result.truncated) == ("ok", True)
    assert any("were dropped" in notice for notice in result.notices)
    assert (await caller.run("x", language)).outputs[0].data["text/plain"] == "1"


FORGED = """
shell = get_ipython()
control, cell = shell.displays._control, shell.displays._id
"""
LONG = "'ж' * 4_000_000"


@pytest.mark.parametrize(
    "frame",
    [
        f"'done', 'error': {{'type': 'E', 'message': {LONG}, 'line': 1, 'traceback': '', 'hint': ''}}, 'notices': []",
        f"'done', 'error': None, 'notices': [{LONG}]",
        "'display', 'data': {}, 'is_result': False,"
        " 'picture': {'mime': 'x', 'data': '', 'width': 1, 'height': 1, 'path': None, 'alt': ''}",
    ],
)
async def test_a_forged_frame_that_the_server_would_not_take_ends_the_worker_and_not_the_session(caller, frame):
    await caller.run("open('kept', 'w').write('5')")
    end = "'status': 'ok', 'return_code': 0, 'variables': []"
    code = f"{FORGED}control.send({{'id': cell, {end}, 'event': {frame}}})\nimport time; time.sleep(9)"
    result = await caller.run(code, timeout=20)
    assert result.status == "crashed", result
    assert (await caller.run("print(open('kept').read())")).stdout == "5\n"


async def test_a_worker_that_is_ready_twice_is_ended(caller):
    result = await caller.run(f"{FORGED}control.send({{'event': 'ready'}})\nimport time; time.sleep(9)", timeout=20)
    assert result.status == "crashed", result
    assert (await caller.run("print(1)")).stdout == "1\n"


async def test_what_a_dead_worker_leaves_behind_cannot_keep_its_leader_busy(caller):
    code = """
import json, os, time
body = json.dumps({"event": "display", "id": "x", "data": {}, "picture": None, "is_result": False}).encode()
frames = (len(body).to_bytes(4, "big") + body) * 10_000
writing = os.dup(control._sock.fileno())  # its own is closed in a forked child
if os.fork() == 0:
    while True:
        os.write(writing, frames)
time.sleep(0.3)
os._exit(3)
"""
    async with asyncio.timeout(10):
        result = await caller.run(f"{FORGED}{code}", timeout=30)
        assert result.status == "crashed" and any("exit code 3" in notice for notice in result.notices), result
        assert (await caller.run("print(1)")).stdout == "1\n"


async def test_errors_and_notices_of_any_length_are_sent_in_short(caller):
    code = """
from matplotlib.figure import Figure
class Name(type):
    __name__ = property(lambda self: 5)
class Wide(Figure):
    def draw(self, renderer): raise ValueError('ж' * 10**6)
    def __repr__(self): return 'ж' * 10**6
figure = Wide(); figure.add_subplot()
display(figure)
error = Name('E' * 10**6, (Exception,), {})('\\udc80' * 10**6)
for _ in range(10): error.add_note('\\udc80' * 10**6)
raise error
"""
    result = await caller.run(code)
    assert (result.status, result.error.line) == ("error", 12), result
    assert result.error.type.startswith("EEE") and len(result.error.type) < 300
    assert any("could not be drawn" in notice or notice.endswith("ж…") for notice in result.notices)
    assert (await caller.run("print(len(error.__notes__))")).stdout == "10\n"


async def test_a_report_that_fits_no_frame_costs_its_contents_and_not_the_session(make_settings):
    async with Executor(make_settings(max_output_length=10_000_000)) as executor:
        code = (
            "import time\nfor i in range(9):\n    print('я' * 700_000 + str(i), flush=True); time.sleep(0.1)\nx = 1; 5"
        )
        result = await executor.execute(code, language="python", owner="alice")
        assert result.status == "ok" and result.truncated and not result.outputs
        assert "too large to be sent" in result.notices[-1]
        assert result.stdout.endswith("я8\n") and len(result.stdout) == 10_000
        again = await executor.execute("print(x)", language="python", owner="alice", session_id=result.session_id)
        assert again.stdout == "1\n"
