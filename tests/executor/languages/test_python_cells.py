"""Python runs like a notebook: what lasts, what is shown, what IPython adds."""

import json
import socket
import subprocess

import pytest
from python_fixtures import *  # noqa: F403  fixtures

from executor.errors import InvalidRequest
from executor.languages.channel import ProtocolError
from executor.languages.python import Python


def test_variables_imports_functions_and_classes_last(shared):
    shared.run("import fractions\nx = 41\ndef double(a):\n    return 2 * a\nclass Box:\n    size = 3")
    cell = shared.run("x + 1, double(4), Box.size, fractions.Fraction(1, 2)")
    assert cell.result == "(42, 8, 3, Fraction(1, 2))"


def test_what_was_set_before_an_error_lasts(shared):
    assert shared.run("before = 1\n1 / 0\nafter = 2").status == "error"
    assert shared.run("before").result == "1"
    assert shared.run("after").error["type"] == "NameError"


def test_names_of_the_recipe_are_ready(worker):
    cell = worker.run(
        "np.e, pd.__name__, plt.__name__, json.dumps(1), math.pi, random.random() < 1, base64.b64encode(b''),"
        " io.StringIO().getvalue(), datetime(2020, 1, 1) + timedelta(days=1)"
    )
    assert cell.status == "ok"
    assert "datetime.datetime(2020, 1, 2" in cell.result


@pytest.mark.parametrize(
    ("code", "result"),
    [
        ("1 + 1", "2"),
        ("'text'", "'text'"),
        ("None", None),
        ("x = 1", None),
        ("1;", None),
        ("1  ;  # quiet", None),
        ("'a;b'", "'a;b'"),
        ("'#;'  # loud", "'#;'"),
        ("1; 2", "2"),
        ("for i in range(3):\n    i", None),
        ("\n\n5\n\n", "5"),
        ("if True:\n    6", None),
        ("'ä' + 'ö' ;", None),
        ("lambda_ = [1,\n 2]\nlambda_", "[1, 2]"),
    ],
)
def test_the_last_expression_is_shown_unless_a_semicolon_ends_it(shared, code, result):
    assert shared.run(code).result == result


def test_empty_cells_and_comments_are_fine(shared):
    for code in ("", "   \n\t", "# only a comment", "pass"):
        cell = shared.run(code)
        assert (cell.status, cell.displays) == ("ok", [])


def test_prints_come_in_order_and_complete(shared):
    cell = shared.run("import sys, os\nprint('a')\nos.write(1, b'b\\n')\nprint('c', end='')\nsys.stderr.write('e')")
    assert (cell.out, cell.err) == ("a\nb\nc", "e")


def test_output_of_c_code_and_of_children_is_captured(shared):
    cell = shared.run("import ctypes, os\nctypes.CDLL(None).puts(b'from C')\nos.system('echo child; echo no >&2');")
    assert sorted(cell.out.split()) == ["C", "child", "from"]
    assert cell.err == "no\n"


def test_underscore_and_out_remember_values(worker):
    worker.run("11")
    worker.run("22")
    assert worker.run("_, __, _1, Out[2], In[1]").result == "(22, 11, 11, 22, '11\\n')"
    worker.run("_ = 'mine'")
    worker.run("33")
    assert worker.run("_").result == "'mine'"


def test_out_is_bounded(worker):
    for number in range(105):
        worker.run(f"{number}")
    assert worker.run("len(Out) <= 100 and '_1' not in globals() and _104").result == "103"


def test_top_level_await_works_and_tasks_go_on_with_the_next_await(shared):
    shared.run("import asyncio\nasync def later():\n    await asyncio.sleep(0.01)\n    return 7")
    assert shared.run("await later()").result == "7"
    shared.run("await asyncio.sleep(0)\ntask = asyncio.create_task(later())")
    assert shared.run("await task").result == "7"
    assert shared.run("async for x in 3:\n    pass").error["type"] == "TypeError"


def test_asyncio_run_works_beside_top_level_await(shared):
    shared.run("import asyncio\nasync def seven():\n    return 7")
    assert shared.run("asyncio.run(seven())").result == "7"
    assert shared.run("await seven()").result == "7"
    assert shared.run("asyncio.run(seven())").result == "7"
    assert "running event loop" in shared.run("await asyncio.sleep(0)\nasyncio.run(seven())").error["message"]


def test_future_imports_last(worker):
    worker.run("from __future__ import annotations")
    assert worker.run("def f(a: nowhere): ...\nf.__annotations__").result == "{'a': 'nowhere'}"


def test_line_magics_work(shared):
    timed = shared.run("%time 1 + 1")
    assert timed.result == "2"
    assert "Wall time" in timed.out
    assert "per loop" in shared.run("%timeit -n2 -r2 sum(range(10))").out
    assert shared.run("value = %pwd\nvalue").result == repr(str(shared.folder))
    assert shared.run("%matplotlib inline").status == "ok"
    assert shared.run("%cd /\n%cd -").status == "ok"


def test_cell_magics_work(shared):
    assert "Wall time" in shared.run("%%time\ntotal = sum(range(10))").out
    assert shared.run("total").result == "45"
    assert shared.run("%%bash\nexit 3").error["type"] == "CalledProcessError"
    shared.run("%%bash --out words\necho kept")
    assert shared.run("words").result == "'kept\\n'"
    assert shared.run("%%bash\nfor i in 1 2; do echo $i; done").out.split() == ["1", "2"]
    captured = shared.run("%%capture caught\nprint('x')\ndisplay(5)")
    assert (captured.out, captured.displays) == ("", [])
    assert shared.run("caught.stdout, len(caught.outputs)").result == "('x\\n', 1)"


def test_an_error_below_capture_is_the_cells(worker):
    worker.run("def f():\n    return 1 / 0")
    cell = worker.run("%%capture out\nprint('before')\nif True:\n    f()\nprint('after')")
    assert (cell.done["status"], cell.out, cell.err) == ("error", "", "")
    assert (cell.error["type"], cell.error["line"]) == ("ZeroDivisionError", 4)
    assert cell.error["traceback"].splitlines() == [
        "Traceback (most recent call last):",
        "  cell 2, line 1",
        "  > 1 %%capture out",
        "  cell 2, line 4",
        "  > 4     f()",
        "  cell 1, line 2, in f",
        "    1 def f():",
        "  > 2     return 1 / 0",
        "ZeroDivisionError: division by zero",
    ]
    assert worker.run("print(out.stdout)").out == "before\n\n"
    assert worker.run("import sys\nprint(1)\n2").out == "1\n"


@pytest.mark.parametrize(
    ("code", "kind", "line"),
    [
        ("%%capture\nx = (", "SyntaxError", 2),
        ("\n%%capture\n\n  \n  y = 1\n  1 / 0\n\n", "ZeroDivisionError", 6),
        ("%%time\n%%capture out\n1 / 0", "ZeroDivisionError", 3),
        ("%%capture\nimport asyncio\nawait asyncio.sleep(0)\n{}['a']", "KeyError", 4),
        ("1\nget_ipython().run_cell_magic('capture', '', '1 / 0')", "ZeroDivisionError", 2),
        ("%%capture --none\n1", "UsageError", 1),
    ],
)
def test_the_line_of_an_error_below_capture_is_that_of_the_cell(shared, code, kind, line):
    error = shared.run(code).error
    assert (error["type"], error["line"]) == (kind, line)
    # and nothing of it is left for code that comes next
    assert shared.run("\n\n1 / 0").error["line"] == 3
    assert "part 1, line 1" in shared.run("get_ipython().run_cell('1 / 0')").err


def test_capture_lets_through_what_it_is_told_to(shared):
    code = "import sys\nprint(1)\nprint(2, file=sys.stderr)\ndisplay(3)"
    for options, wanted in {
        "": ("", "", []),
        "--no-stdout": ("1\n", "", []),
        "--no-stderr": ("", "2\n", []),
        "--no-display": ("", "", ["3"]),
    }.items():
        cell = shared.run(f"%%capture {options}\n{code}")
        assert (cell.out, cell.err, cell.texts) == wanted
    assert shared.run("%%capture out\n5;").done["status"] == "ok"
    assert shared.run("out.stdout").result == "''"


def test_shell_commands_work(shared):
    cell = shared.run("!echo out; echo err >&2; exit 3")
    assert (cell.out, cell.err) == ("out\n", "err\n")
    assert shared.run("_exit_code").result == "3"
    assert shared.run("lines = !echo one; echo two\nlines").result == "['one', 'two']"
    assert shared.run("!!echo three").result == "['three']"
    assert shared.run("word = 'four'\n!echo {word} $word").out == "four four\n"
    assert shared.run("%%capture c\n!echo five").out == ""
    assert shared.run("c.stdout").result == "'five\\n'"


def test_help_is_shown_as_text(shared):
    assert "Return the number of items" in shared.run("len?").texts[0]
    shared.run("def mine():\n    'What it does.'\n    return 1")
    assert "What it does." in shared.run("?mine").texts[0]
    assert "return 1" in shared.run("mine??").texts[0]


def test_names_win_over_magics_of_the_same_name(shared):
    shared.run("import os\nopen('seen.txt', 'w').close()")
    assert "seen.txt" in shared.run("ls").out
    assert shared.run("ls = 5\nls").result == "5"
    assert shared.run("l = 1\nls -l").result == "4"


def test_line_numbers_count_leading_empty_lines_also_with_magics(shared):
    assert shared.run("\n\n1 / 0").error["line"] == 3
    assert shared.run("\n\n%time 1\n1 / 0").error["line"] == 4


def test_interactivity_of_all_expressions_can_be_asked_for(worker):
    worker.run("from IPython.core.interactiveshell import InteractiveShell as S\nS.ast_node_interactivity = 'all'")
    assert worker.run("1\nx = 2\n3;\n4").texts == ["1", "4"]
    worker.run("S.ast_node_interactivity = 'last_expr_or_assign'")
    assert worker.run("1\ny = 5").texts == ["5"]


def test_code_that_runs_cells_by_itself_works(shared):
    cell = shared.run("get_ipython().run_cell('print(3)\\n1 / 0');")
    assert cell.out == "3\n"
    assert "ZeroDivisionError" in cell.err


def test_extensions_get_their_events(worker):
    (worker.folder / "changing.py").write_text("def value():\n    return 1\n")
    worker.run("%load_ext autoreload\n%autoreload 2\nimport changing")
    assert worker.run("changing.value()").result == "1"
    (worker.folder / "changing.py").write_text("def value():\n    return 22222\n")
    assert worker.run("changing.value()").result == "22222"


def test_modules_of_the_folder_and_of_the_package_folder_can_be_imported_at_once(worker):
    assert worker.run("import fresh").status == "error"
    (worker.folder / "fresh.py").write_text("value = 1\n")
    assert worker.run("import fresh\nfresh.value").result == "1"
    packages = worker.folder / ".packages" / "python"
    packages.mkdir(parents=True)
    (packages / "installed.py").write_text("value = 2\n")
    assert worker.run("import installed\ninstalled.value").result == "2"


def test_classes_can_be_pickled_and_functions_give_their_source(shared):
    assert shared.run("import pickle\nclass K:\n    a = 1\npickle.loads(pickle.dumps(K())).a").result == "1"
    assert shared.run("import inspect\ndef shown():\n    return 1\nprint(inspect.getsource(shown))").out.startswith(
        "def"
    )


def test_reset_gives_the_names_back(worker):
    worker.run("x = 1\nnp = None")
    worker.run("%reset -f")
    assert worker.run("'x' in globals(), np.e").result == "(False, 2.718281828459045)"


def test_random_numbers_differ_between_workers(zygote, tmp_path):
    seen = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        worker = zygote.fork(tmp_path / name)
        seen.append(worker.run("print(np.random.random(), random.random(), __import__('uuid').uuid4())").out.split())
        worker.close()
    assert [first != second for first, second in zip(*seen, strict=True)] == [True] * 3


def test_the_zygote_has_one_thread_and_no_spare_modules(zygote):
    assert zygote.report["threads"] == 1
    assert not {"jedi", "parso", "sqlite3", "zmq"} & set(zygote.report["modules"])


def test_a_worker_has_one_thread_and_only_its_descriptors(worker):
    cell = worker.run("import os\nlen(os.listdir('/proc/self/task')), len(os.listdir('/proc/self/fd'))")
    threads, descriptors = eval(cell.result)
    assert threads == 1
    assert descriptors <= 8  # 0, 1, 2, the channel, two kept ends, and what listdir and the test's own zygote hold


def test_code_that_is_no_text_is_refused():
    with pytest.raises(InvalidRequest, match="half a character"):
        Python().execute("x", "'\ud800'", 1)


def test_code_with_nul_bytes_is_an_error_with_a_sentence(shared):
    cell = shared.run("x = 1\0")
    assert cell.status == "error"
    assert "null bytes" in cell.error["message"]


def test_the_leader_takes_only_events_that_are_true_to_form():
    frame = json.dumps({"event": "done", "id": "x", "status": "fine"}).encode()
    with pytest.raises(ProtocolError):
        Python().feed(len(frame).to_bytes(4, "big") + frame)


def test_a_worker_can_also_be_executed(tmp_path):
    speaker = Python()
    ours, theirs = socket.socketpair()
    environment = {
        "OPENBLAS_NUM_THREADS": "1",
        "JE_ARROW_MALLOC_CONF": "background_thread:false",
        "HOME": str(tmp_path),
    }
    # as a leader does it: the number that the command expects is put in place in the child
    wrapped = ["/bin/bash", "-c", f'exec "$@" {speaker.CONTROL[0]}<&{theirs.fileno()}', "bash", *speaker.command()]
    process = subprocess.Popen(
        wrapped, pass_fds=[theirs.fileno()], cwd=tmp_path, env=environment | speaker.environment()
    )
    theirs.close()
    ours.settimeout(60)
    ours.sendall(speaker.execute("x1", "import os\nos.getcwd()", 1))
    events = []
    while not any(event["event"] == "done" for event in events):
        data = ours.recv(1 << 20)
        assert data
        events += speaker.feed(data)
    ours.close()
    assert process.wait(10) == 0
    assert [event["event"] for event in events] == ["ready", "display", "done"]
    assert events[1]["data"]["text/plain"] == repr(str(tmp_path))


def test_an_interrupt_is_a_signal_to_the_worker():
    assert Python().interrupt() is None
    assert Python().interrupt_target == "worker"
