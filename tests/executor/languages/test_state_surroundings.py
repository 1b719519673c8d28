"""What belongs to a Python session beside its variables comes back with them."""

# ruff: noqa: E501  a line a thing reads best

import ast

import pytest
from python_fixtures import *  # noqa: F403  fixtures

from executor.languages import ownmodules

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


def lost_by(zygote, folder, *codes):
    """What a save tells as lost after these cells: reasons by name."""
    worker = zygote.fork(folder)
    for code in codes:
        assert worker.run(code).status == "ok", code
    head = worker.save()
    assert head.problem == ""
    worker.close()
    return {entry["name"]: entry["reason"] for entry in head.lost}


HELPER = """
import functools, json, logging, re, dataclasses, enum, typing
from math import pi, sqrt as root
from dataclasses import dataclass, field
log = logging.getLogger(__name__)
WEEK = 7 * 24
OPTIONS = {"a": [1, (2, -3.5)], "b": {"x"}}
PATTERN = re.compile("x")
class Color(enum.Enum):
    RED = 1
class Pair(typing.NamedTuple):
    a: int
    b: str = "x"
@dataclass(slots=True)
class Point:
    x: int = 0
    l: list = field(default_factory=list)
    def both(self):
        return self.x, self.l
class Plain:
    LIMIT = 5
    count: int = 0
    @property
    def size(self):
        return 1
    @classmethod
    def make(cls):
        return cls()
class Below(Plain):
    LIMIT = 6
@functools.cache
def slow(n):
    return n
def decorated(f):
    @functools.wraps(f)
    def inner(*args):
        return f(*args)
    return inner
@decorated
def double(n):
    return 2 * n
"""
CHANGED_MODULES = {
    "value": "helper.WEEK = 5",
    "filled": "helper.OPTIONS['a'].append(4)",
    "new": "helper.cache = {}",
    "class": "helper.Plain.count += 1",
    "inherited": "helper.Below.LIMIT = 7",
    "function": "helper.double = lambda n: 3 * n",
    "method": "helper.Plain.make = lambda: 5",
    "attribute": "helper.double.calls = 3",
    "gone": "del helper.WEEK",
}


def test_a_plain_module_from_the_sessions_own_files_is_not_said_to_be_lost(zygote, tmp_path):
    (tmp_path / "helper.py").write_text(HELPER)
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("from .inner import X, f\n")
    (tmp_path / "package" / "inner.py").write_text("X = 1\ndef f():\n    return X\n")
    code = (
        "import helper, package\nhelper.slow(1), helper.double(2), helper.Point(), helper.Plain().size, helper.root(4)"
    )
    assert lost_by(zygote, tmp_path, code) == {}


@pytest.mark.parametrize("how", CHANGED_MODULES)
def test_a_module_from_the_sessions_own_files_that_was_changed_is_told_once(zygote, tmp_path, how):
    (tmp_path / "helper.py").write_text(HELPER)
    lost = lost_by(zygote, tmp_path, "import helper, helper as again", CHANGED_MODULES[how])
    assert lost == {"./helper.py": "loaded anew: what it had changed within itself"}


def test_of_a_module_whose_values_are_not_written_out_or_that_was_edited_nothing_is_known(zygote, tmp_path):
    (tmp_path / "made.py").write_text("import time\nnow = time.time()\n")
    (tmp_path / "edited.py").write_text("X = 1\n")
    (tmp_path / "broken.py").write_text("X = 1\n")
    (tmp_path / "piped.py").write_text("X = 1\n")
    (tmp_path / ".packages").mkdir()
    (tmp_path / ".packages" / "installed.py").write_text("X = 1\n")
    code = """
import sys, os; sys.path.append('.packages'); import made, edited, broken, piped, installed
installed.X = 2
open('edited.py', 'w').write('X = 2'); open('broken.py', 'w').write('(')
os.unlink('piped.py'); os.mkfifo('piped.py')
"""
    assert set(lost_by(zygote, tmp_path, code)) == {"./made.py", "./edited.py", "./broken.py", "./piped.py"}


def test_handlers_of_loggers_are_said_to_be_lost_and_how_to_get_them_again(zygote, tmp_path):
    (folder := tmp_path / "root").mkdir()
    lost = lost_by(zygote, folder, "import logging\nlogging.basicConfig(level=logging.INFO)")
    assert set(lost) == {"(logging)"} and "the root logger" in lost["(logging)"] and "basicConfig" in lost["(logging)"]
    (folder := tmp_path / "named").mkdir()
    for name in ("mine", "__main__"):
        lost = lost_by(
            zygote, folder, f"import logging\nlogging.getLogger({name!r}).addHandler(logging.StreamHandler())"
        )
        assert set(lost) == {"(logging)"} and f"of {name!r}" in lost["(logging)"]
    code = "import logging\nlogging.getLogger('mine').addHandler(logging.NullHandler())\nlogging.getLogger('mine').setLevel(10)"
    assert lost_by(zygote, folder, code) == {}
    # as libraries do when they are imported, which the fresh worker does, too
    code = "import logging, matplotlib\nlogging.getLogger('matplotlib.x').addHandler(logging.StreamHandler())"
    assert lost_by(zygote, folder, code) == {}


def test_whatever_the_guest_does_to_its_modules_and_loggers_its_variables_are_saved(zygote, tmp_path):
    (tmp_path / "odd.py").write_text("X = [1]\n")
    code = """
import sys, logging, odd
class Odd(type(sys)):
    def __getattribute__(self, name): raise KeyboardInterrupt
class Same:
    def __eq__(self, other): raise SystemExit
    def __hash__(self): return 0
    @property
    def __module__(self): raise SystemExit
class Rude(type):
    def __getattribute__(self, name): raise SystemExit
odd.Z = Rude('Z', (), {})
odd.X, odd.Y, odd.__dict__[Same()] = [Same()], Same(), 1
sys.modules['odd2'], sys.modules['odd3'] = Odd('odd2'), 5
logging.root.manager.loggerDict['z'] = 1
logging.root.handlers = 5
kept = 1
"""
    worker = zygote.fork(tmp_path)
    assert worker.run(code).status == "ok"
    head = worker.save()
    assert head.problem == "" and "kept" in head.names
    worker.close()


def test_what_a_source_makes_of_a_few_characters_is_not_made_to_compare_it():
    source = (
        "A = 2 * 3\nB = 'x' * 10_000_000_000\nC = [0] * 10_000_000_000\nD = (1, 'x' * 10_000_000_000)\nE = [1, -2, 'x']"
    )
    assert ownmodules._constants(ast.parse(source).body) == {"A": 6, "E": [1, -2, "x"]}
