"""Errors whose cause is known say what to do next."""

from __future__ import annotations

import errno
import socket
import urllib.error

import pytest
from python_fixtures import *  # noqa: F403  fixtures

from executor.languages.hints import NO_NETWORK, bash_hint, hint_for, javascript_hint, timeout_hint
from executor.sandbox.notifier import explain


def hint(worker, code):
    return worker.run(code).error["hint"]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import polars", 'install_packages(["polars"])'),
        ("from cv2.data import x", 'install_packages(["opencv-python-headless"])'),
        ("import jsn", "Or is json meant?"),
        ("raise ImportError('needs polars') from ModuleNotFoundError('x', name='polars')", '["polars"]'),
        ("import subprocess; subprocess.run(['ffmpegx'])", "The program ffmpegx is not installed here"),
        ("pd.DataFrame({'price': [1], 'b': [2]})['Price']", "The columns are: price, b."),
        ("np.ones((10**6, 10**6))", "not fit into the session's memory"),
        ("import socket; raise socket.gaierror(-3, 'no')", NO_NETWORK),
        ("import errno; raise OSError(errno.ENOSPC, 'full')", "folder is full"),
    ],
)
def test_a_known_cause_has_a_hint(shared, code, words):
    assert words in hint(shared, code)


@pytest.mark.parametrize("code", ["1 / 0", "import numpy.nothing", "{}['a']", "raise OSError('x')", "x = ("])
def test_an_unknown_cause_has_none(shared, code):
    assert hint(shared, code) == ""


def test_a_missing_file_says_what_is_there_nearest_first(worker):
    assert "holds no files yet" in hint(worker, "open('sales.csv')")
    (worker.folder / "data").mkdir()
    for name in ("a.txt", "data/sales_2024.csv", ".hidden"):
        (worker.folder / name).write_text("x")
    text = hint(worker, "pd.read_csv('sales.csv')")
    assert "has: data/sales_2024.csv, a.txt." in text and ".hidden" not in text
    assert "open_session_page" in text and "upload_file" in text
    assert "It is there as data/sales_2024.csv" in hint(worker, "open('/mnt/data/sales_2024.csv')")


def test_a_module_of_the_users_own_that_lies_elsewhere_is_found(worker):
    (worker.folder / "code").mkdir()
    (worker.folder / "code" / "mine.py").write_text("x = 1")
    assert 'sys.path.insert(0, "code")' in hint(worker, "import mine")


def test_the_list_of_files_is_bounded(worker):
    for number in range(3_000):
        (worker.folder / f"{number}-{'n' * 200}").write_bytes(b"")
    cell = worker.run("open('x')")
    assert len(cell.error["hint"]) <= 600


def test_missing_semaphores_are_explained(shared):
    code = (
        "import multiprocessing, resource\nmultiprocessing.Lock()\n"
        "held = resource.getrlimit(resource.RLIMIT_NOFILE)\nresource.setrlimit(resource.RLIMIT_NOFILE, (3, held[1]))\n"
        "try:\n    multiprocessing.Lock()\nfinally:\n    resource.setrlimit(resource.RLIMIT_NOFILE, held)"
    )
    assert "ThreadPoolExecutor" in hint(shared, code)


def test_no_network_is_found_however_it_is_wrapped():
    unreachable = OSError(errno.ENETUNREACH, "unreachable")
    outer = ValueError("outer")
    outer.__cause__ = urllib.error.URLError(unreachable)
    loop = ValueError("loop")
    loop.__context__ = loop
    assert hint_for(outer, None) == hint_for(socket.gaierror(-2, "x"), None) == NO_NETWORK == explain("network")
    assert hint_for(loop, None) == ""


def test_errors_that_lie_about_themselves_do_no_harm(shared):
    code = (
        "class Bad(FileNotFoundError):\n    filename = property(lambda s: 1 / 0)\n"
        "    __cause__ = property(lambda s: 1 / 0)\n"
        "raise Bad(2, 'x')"
    )
    assert hint(shared, code) == ""
    assert hint(shared, "raise ModuleNotFoundError('x', name='\"]) or rm')") == ""
    assert hint(shared, "raise ModuleNotFoundError('x', name=5)") == ""


def test_javascript_says_what_to_install():
    assert '["lodash"], language="javascript"' in javascript_hint("Cannot find module 'lodash/fp'", "")
    assert '["@scope/it"]' in javascript_hint("Cannot find package '@scope/it' imported from x", "")
    assert javascript_hint("Cannot find module './mine.js'", "") == ""
    assert "no nix.txt" in javascript_hint("ENOENT: no such file or directory, open 'nix.txt'", "")
    assert javascript_hint("fetch failed", "[cause]: Error: getaddrinfo EAI_AGAIN example.com") == NO_NETWORK
    assert javascript_hint("x is not defined", "ReferenceError") == ""


def test_bash_says_what_is_not_there():
    assert "Not installed here: jq." in bash_hint("cell 1: line 1: jq: command not found\n" * 2)
    assert bash_hint("curl: (6) Could not resolve host: a.b") == NO_NETWORK
    assert bash_hint("cat: x: No such file or directory") == ""


def test_a_timeout_names_the_longest_one():
    assert "at most 600 s" in timeout_hint(30, 600)
    assert "No longer timeout" in timeout_hint(600, 600)
