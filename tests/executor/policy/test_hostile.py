"""Whatever the string, a check gives an answer: it never raises and always ends."""

from __future__ import annotations

import time
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from executor.policy import check
from executor.results import LANGUAGES, Language

BOUND = 6.0
"""Processor seconds, generous: the budget is 1.5, and a parser's last step and the tree's end come on top."""

PIECES = [
    *"\0\n\r\t \\'\"`$(){}[]<>|&;!?%#=,.:*~@/-+é\ud800\udfff\u2028\x0c",
    *(
        "rm ",
        "x=rm",
        "$x",
        "<<EOF\n",
        "EOF\n",
        "$'\\x72",
        "bash -c ",
        "eval ",
        "xargs ",
        "find -exec ",
        "f(){ ",
        "if ",
        "then ",
    ),
    *(
        "import os",
        "from ",
        "def f(open):\n ",
        "lambda open: ",
        "f'{",
        "%%bash\n",
        "%time ",
        "get_ipython()",
        ">>> ",
        "In [1]: ",
    ),
    *("eval", "__class__", "[a for a in ", "match x:\n case ", "requests.get(", "os.system("),
    *(
        "require(",
        "import(",
        "`${",
        "const {",
        "} = process",
        "new Function",
        ".constructor",
        "\\u{",
        "=>",
        "/*",
        "await ",
    ),
]
text = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(PIECES), max_size=40).map("".join))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("level", ["strict", "standard"])
@settings(max_examples=250, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(code=text)
def test_check_never_raises(language: Language, level: str, code: str) -> None:
    for violation in check(code, language, level):  # type: ignore[arg-type]
        assert violation.line >= 1
        assert violation.column >= 1
        violation.message.encode()


HOSTILE = {
    "NUL bytes": "\0" * 1_000_000,
    "lone surrogates": "\ud800" * 300_000,
    "open parentheses": "(" * 1_000_000,
    "open substitutions": "$(" * 500_000,
    "open quotes": "'" * 999_999,
    "minus signs": "-" * 1_000_000 + "1",
    "attributes": "a" + ".a" * 499_999,
    "f-string of many pieces": "f'" + "{a}" * 333_000 + "'",
    "statements": "a;" * 500_000,
    "empty lines": "\n" * 1_000_000,
    "carriage returns": "\r" * 1_000_000,
    "magics": "!ls\n" * 250_000,
    "braces": "{," * 500_000,
    "commas in braces": "{" + "," * 999_999,
    "assignments after bangs": "! a=" * 250_000,
    "commands": "rm x;" * 200_000,
    "one pipeline": "echo 'rm x' | " * 70_000 + "sh",
    "find with many commands": "find " + "-exec rm " * 100_000,
    "wrappers": "xargs " * 160_000 + "rm",
    "growing variables": "x=rm$x$x;" * 100_000,
    "scripts in strings": "bash -c 'rm x';" * 60_000,
    "heredocs": "sh <<A\nrm x\nA\n" * 60_000,
    "decorators": "@a\n" * 90_000 + "def f(): 0",
    "templates": "`${" * 300_000,
    "arrow functions": "a=>" * 300_000,
    "noise": "$(){}[]`'\";|&<>" * 66_000,
    "one long line of other letters": "é rm x;" * 120_000,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("code", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_megabyte_made_to_be_slow_is_answered_in_bounded_time(language: Language, code: str) -> None:
    start = time.thread_time()
    found = check(code, language, "strict")
    assert time.thread_time() - start < BOUND
    assert len(found) <= 20


def test_code_that_python_will_not_run_has_no_violations() -> None:
    for code in ("import os(", "def f(:\n  open('x')", "x = = eval('1')", "import os\0"):
        assert check(code, "python", "strict") == ()


def test_a_check_leaves_nothing_behind_for_the_next_one() -> None:
    assert check("x=rm", "bash", "strict") == ()
    assert check("$x file", "bash", "strict") == ()
    assert check("open = prices['open']", "python", "strict") == ()
    assert check("map(open, names)", "python", "strict")


@pytest.mark.parametrize(
    "code", ["x = '\\d'; import os", "0in x; import os", "!ls '\\d'\nimport os", "\x1c%sx ls\nimport os"]
)
def test_warnings_about_a_cell_neither_reach_the_log_nor_hide_the_rest_of_it(code: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [violation.rule for violation in check(code, "python", "strict")] == ["python-import"]
