"""A cell's new and changed variables are told by type and size, cheaply, whatever the objects are."""

import pytest
from python_fixtures import *  # noqa: F403  fixtures


def told(cell):
    return {v["name"]: f"{v['type']} {v['summary']}".strip() for v in cell.done["variables"]}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("a = 41", "int = 41"),
        ("a = 2 ** 5000", "int of 5,001 bits"),
        ("a = 1.5", "float = 1.5"),
        ("a = None", "NoneType = None"),
        ("a = 'abc'", "str = 'abc'"),
        ("a = 'x' * 5000", "str of 5,000 characters"),
        ("a = list(range(1234))", "list of 1,234"),
        ("a = {}", "dict of 0"),
        ("a = np.zeros((3, 4))", "ndarray 3x4 float64"),
        ("a = np.float64(2.5)", "float64 = 2.5"),
        ("a = np.array(5)", "ndarray of no dimension int64"),
        ("a = pd.DataFrame(np.zeros((1000, 3)))", "DataFrame 1000x3"),
        ("a = pd.Series(range(100))", "Series of 100 int64"),
        ("a = plt.figure(); plt.close()", "Figure"),
    ],
)
def test_a_variable_is_told_by_type_and_size(shared, code, words):
    assert told(shared.run(f"{code}\nb = 0"))["a"] == words
    shared.run("del a, b")


def test_only_what_is_new_or_changed_is_told(worker):
    assert told(worker.run("x, y = 1, [1]")) == {"x": "int = 1", "y": "list of 1"}
    assert worker.run("x").done["variables"] == []
    cell = worker.run("y.append(2)\nz = 3")
    assert [(v["name"], v["change"]) for v in cell.done["variables"]] == [("y", "changed"), ("z", "new")]
    worker.run("df = pd.DataFrame({'a': [1]})")
    assert told(worker.run("df['b'] = 2")) == {"df": "DataFrame 1x2"}
    assert told(worker.run("del x, df")) == {}


def test_modules_functions_classes_and_hidden_names_are_not_told(worker):
    cell = worker.run("import os, numpy\ndef f(): pass\nclass C: pass\n_hidden = 1\ng = len\nh = lambda: 1\n'value'")
    assert cell.done["variables"] == []
    assert told(worker.run("np = 5")) == {"np": "int = 5"}


def test_variables_of_a_cell_that_raised_are_told(worker):
    assert told(worker.run("kept = 1\n1 / 0")) == {"kept": "int = 1"}


def test_hostile_objects_are_not_asked(worker):
    cell = worker.run(
        "class Meta(type):\n    __name__ = property(lambda c: 1 / 0)\n"
        "    def __getattribute__(c, name):\n        print('asked for', name)\n"
        "        return super().__getattribute__(name)\n"
        "class H(metaclass=Meta):\n"
        "    def __getattribute__(s, name):\n        print('asked for', name)\n        while True: pass\n"
        "    __len__ = __repr__ = __eq__ = __hash__ = lambda *a: 1 / 0\n"
        "class L(list):\n    def __len__(s):\n        while True: pass\n"
        "print('made')\nh, l = H(), L()"
    )
    assert told(cell) == {"h": "H", "l": "L"}
    assert "asked" not in cell.out.partition("made")[2]


def test_names_and_numbers_of_variables_are_bounded(worker):
    cell = worker.run("for i in range(500): globals()[f'v{i}'] = i\nglobals()['n' * 5000] = 1\nglobals()[5] = 6")
    assert len(cell.done["variables"]) == 50
    assert cell.done["variables"][-1]["name"] == "n" * 99 + "…"
    assert told(worker.run("globals()['\\ud800'] = '\\ud800'")) == {"\\ud800": r"str = '\ud800'"}


def test_a_library_that_the_guest_broke_does_no_harm(worker):
    cell = worker.run("df = pd.DataFrame({'a': [1]})\npd.DataFrame.shape = property(lambda s: 1 / 0)")
    assert cell.status == "ok"
    assert told(cell)["df"] == "DataFrame"
