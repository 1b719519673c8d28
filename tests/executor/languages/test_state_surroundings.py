"""What belongs to a Python session beside its variables comes back with them."""

# ruff: noqa: E501  a line a thing reads best

import pytest
from python_fixtures import *  # noqa: F403  fixtures

CHANGES = {
    "folder": ("import os\nos.makedirs('sub/deep')\nos.chdir('sub/deep')", "os.getcwd().endswith('/sub/deep')"),
    "environment": ("os.environ['MINE'] = 'x'\nos.environ['HOME'] += '/h'\ndel os.environ['LC_ALL']", "(os.environ['MINE'], os.environ['HOME'][-2:], 'LC_ALL' in os.environ) == ('x', '/h', False)"),
    "paths": ("import sys\nsys.path.insert(0, '/front')\nsys.path.append('/end')", "sys.path[0] == '/front' and sys.path[-1] == '/end' and sys.path.count('/end') == 1"),
    "matplotlib": ("plt.rcParams['figure.dpi'] = 55\nplt.style.use('ggplot')", "plt.rcParams['figure.dpi'] == 55 and plt.rcParams['axes.facecolor'] == '#E5E5E5'"),
    "pandas": ("pd.set_option('display.max_rows', 7)", "pd.get_option('display.max_rows') == 7"),
    "numpy": ("np.set_printoptions(precision=2)\n_ = np.seterr(divide='ignore')", "str(np.array([1 / 3])) == '[0.33]' and np.geterr()['divide'] == 'ignore'"),
    "random": ("import copy\nexpected = copy.deepcopy(random._inst).random(), copy.deepcopy(np.random.mtrand._rand).random()", "(random.random(), np.random.random()) == expected"),
    "warnings": ("import warnings\nwarnings.simplefilter('error', UserWarning)", "warnings.filters[0][0] == 'error' and warnings.filters[0][2] is UserWarning"),
    "decimal": ("import decimal\ndecimal.getcontext().prec = 5", "str(decimal.Decimal(1) / 3) == '0.33333'"),
    "limit": ("sys.setrecursionlimit(2345)", "sys.getrecursionlimit() == 2345"),
    "removed": ("del math", "'math' not in globals()"),
    "inputs": ("'in the history'", "any('in the history' in code for code in In[:20])"),
}  # fmt: skip


@pytest.fixture(scope="module")
def second(zygote, tmp_path_factory):
    """A fresh worker that has taken over a state with every change."""
    first = zygote.fork(tmp_path_factory.mktemp("session"))
    for name, (code, _) in CHANGES.items():
        assert first.run(code).status == "ok", name
    first.run("def fails():\n    return 1 / 0")
    first.run("5 + 5\n5 + 6")
    first.run("mine = 1")
    head = first.save()
    assert not [name for name in head.names if name.startswith("_") or name in ("In", "Out", "exit", "np")]
    assert head.lost == ()
    first.close()
    worker = zygote.fork(first.folder)
    assert worker.restore()["problem"] == ""
    worker.number = 50
    yield worker
    worker.close()


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_comes_back(second, name):
    cell = second.run(f"bool({CHANGES[name][1]})")
    assert cell.error is None, cell.error["traceback"]
    assert cell.result == "True"


def test_a_traceback_shows_the_lines_of_a_restored_function(second):
    assert "return 1 / 0" in second.run("fails()").error["traceback"]


def test_restored_variables_are_not_told_as_new(second):
    assert second.run("mine").done["variables"] == []


def test_cells_that_made_restored_variables_are_remembered(second):
    head = second.save()
    assert head.problem == ""
    second.run("mine = __import__('threading').Lock()")
    lost = {entry["name"]: entry["cell"] for entry in second.save().lost}
    assert lost == {"mine": second.number}


def test_a_failed_restore_changes_no_surroundings(zygote, tmp_path):
    first = zygote.fork(tmp_path)
    first.run(
        "import os, sys\nos.mkdir('sub')\nos.chdir('sub')\nos.environ['MINE'] = 'x'\nsys.path.insert(0, '/front')"
    )
    first.save()
    first.close()
    path = tmp_path / ".state" / "python"
    path.write_bytes(path.read_bytes()[:-1])
    worker = zygote.fork(tmp_path)
    assert worker.restore()["problem"]
    cell = worker.run("import os, sys\nos.getcwd(), os.environ.get('MINE'), '/front' in sys.path")
    assert cell.result == f"({str(tmp_path)!r}, None, False)"
    worker.close()


def test_nothing_that_loading_prints_leaves_the_worker(zygote, tmp_path):
    first = zygote.fork(tmp_path)
    first.run(
        "class Loud:\n    def __setstate__(self, state):\n        print('loud')\n        import os; os.write(2, b'louder')\nl = Loud()\nl.x = 1"
    )
    first.save()
    first.close()
    worker = zygote.fork(tmp_path)
    worker.restore()
    cell = worker.run("print('mine')")
    assert (cell.out, cell.err) == ("mine\n", "")
    worker.close()
