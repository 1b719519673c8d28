"""Errors and warnings are short and name the cell's own lines."""

from python_fixtures import *  # noqa: F403  fixtures


def test_an_error_names_the_cell_and_its_line_with_two_lines_around(worker):
    cell = worker.run("a = 1\nb = 2\nc = 3\na / 0\nd = 4\ne = 5\nf = 6")
    assert cell.status == "error"
    assert cell.done["return_code"] == 1
    assert (cell.error["type"], cell.error["message"], cell.error["line"]) == (
        "ZeroDivisionError",
        "division by zero",
        4,
    )
    assert cell.error["traceback"].splitlines() == [
        "Traceback (most recent call last):",
        "  cell 1, line 4",
        "    2 b = 2",
        "    3 c = 3",
        "  > 4 a / 0",
        "    5 d = 4",
        "    6 e = 5",
        "ZeroDivisionError: division by zero",
    ]


def test_functions_of_earlier_cells_and_files_of_the_user_are_named(worker):
    worker.run("def f(x):\n    return g(x)")
    (worker.folder / "mine.py").write_text("def g(x):\n    return 1 / x\n")
    worker.run("from mine import g")
    error = worker.run("y = 1\nf(0)").error
    assert error["line"] == 2
    assert "cell 3, line 2\n" in error["traceback"]
    assert "cell 1, line 2, in f" in error["traceback"]
    assert "mine.py, line 2, in g" in error["traceback"]
    assert str(worker.folder) not in error["traceback"]


def test_of_a_library_only_the_last_frame_is_shown(shared):
    error = shared.run("pd.DataFrame({'a': [1]})['b']").error
    assert error["type"] == "KeyError"
    assert error["traceback"].count("(library)") == 1
    assert error["traceback"].count("line") == 2
    assert "site-packages" not in error["traceback"]


def test_a_syntax_error_has_its_line_and_a_caret(shared):
    error = shared.run("x = 1\ny = = 2").error
    assert (error["type"], error["line"]) == ("SyntaxError", 2)
    lines = error["traceback"].splitlines()
    assert lines[1] == "    y = = 2"
    assert lines[2].index("^") == lines[1].index("= 2")
    error = shared.run("x = 1\nreturn x").error
    assert (error["line"], error["message"]) == (2, "'return' outside function")
    assert "return x" in error["traceback"]
    assert shared.run("if True:\nx = 1").error["type"] == "IndentationError"


def test_causes_are_kept_in_short(shared):
    code = "try:\n    {}['a']\nexcept KeyError as e:\n    raise ValueError('outer') from e"
    error = shared.run(code).error
    assert (error["type"], error["line"]) == ("ValueError", 4)
    assert "caused by KeyError: 'a' (cell " in error["traceback"]
    code = "try:\n    {}['a']\nexcept KeyError:\n    raise ValueError('outer')"
    assert "while handling KeyError: 'a'" in shared.run(code).error["traceback"]


def test_endless_recursion_is_told_in_a_few_lines(shared):
    error = shared.run("def down(n):\n    return down(n + 1)\ndown(0)").error
    assert error["type"] == "RecursionError"
    assert len(error["traceback"]) < 1_500
    error = shared.run("def a(n):\n    return b(n)\ndef b(n):\n    return a(n)\na(0)").error
    assert "more frames" in error["traceback"]
    assert len(error["traceback"]) < 3_000


def test_exceptions_that_cannot_be_described_are_described(shared):
    error = shared.run("class E(Exception):\n    def __str__(self):\n        raise RuntimeError\nraise E").error
    assert (error["type"], error["line"]) == ("E", 4)
    assert "could not be made" in error["message"]
    error = shared.run(
        "class F(Exception):\n    @property\n    def __cause__(self): raise ValueError\nraise F('x')"
    ).error
    assert error["type"] == "F"


def test_a_huge_message_is_cut(shared):
    error = shared.run("raise ValueError('x' * 10_000_000)").error
    assert len(error["message"]) < 5_000
    assert "characters left out" in error["message"]


def test_messages_with_half_characters_arrive(shared):
    assert shared.run(r"raise ValueError('\ud800')").error["message"] == "\\ud800"


def test_notes_and_groups_are_told(shared):
    error = shared.run("raise ExceptionGroup('two', [ValueError('v'), KeyError('k')])").error
    assert "- ValueError: v" in error["traceback"]
    error = shared.run("e = ValueError('v')\ne.add_note('look here')\nraise e").error
    assert "look here" in error["traceback"]


def test_errors_below_time_magics_have_the_cells_line(shared):
    assert shared.run("%%time\na = 1\n1 / 0").error["line"] == 3


def test_warnings_take_one_line_and_name_the_cell(worker):
    cell = worker.run("import warnings\nwarnings.warn('careful')")
    assert cell.err == "cell 1, line 2: UserWarning: careful\n"
    cell = worker.run("def old():\n    warnings.warn('old', DeprecationWarning, stacklevel=2)\nold()")
    assert cell.err == "cell 2, line 3: DeprecationWarning: old\n"
    cell = worker.run("x = 1\nnp.log(np.array([0.0, 1.0]))")
    assert cell.err.startswith("cell 3, line 2: RuntimeWarning: divide by zero")


def test_a_warning_comes_again_in_the_next_cell(worker):
    for _ in range(2):
        assert "UserWarning" in worker.run("import warnings\nwarnings.warn('careful')").err


def test_errors_in_threads_are_short(shared):
    cell = shared.run("import threading\nt = threading.Thread(target=lambda: 1 / 0, name='T')\nt.start(); t.join()")
    assert cell.status == "ok"
    assert "Thread T ended" in cell.err
    assert "threading.py" not in cell.err
    assert "ZeroDivisionError" in cell.err


def test_unknown_magics_are_errors(shared):
    assert shared.run("%nosuchmagic").error["type"] == "UsageError"
    assert "IPython" not in shared.run("%nosuchmagic").error["traceback"]
