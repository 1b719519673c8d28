"""The policy reads what IPython will run: the same transformation, letter for letter, whichever way it took."""

from __future__ import annotations

import ast
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from executor.policy import check
from executor.policy.budget import Budget
from executor.policy.notebook import NotRun, cell

LINES = [
    *(
        "import os",
        "x = 1",
        "  y",
        "    !rm x",
        "%sx rm x",
        "x = !rm x",
        "x = %sx rm",
        "x?",
        "?x",
        "??x",
        "%%bash",
        "%%time",
    ),
    *(
        '"""',
        "'''",
        's = """',
        "# !rm x",
        "(",
        ")",
        "[%x",
        "f(a,",
        "%y)",
        "a \\",
        "b \\",
        "% c",
        ">>> z",
        "... z",
        "...: w",
    ),
    *(
        "In [1]: x",
        "   ...: y",
        "[ins] In [2]: z",
        "/f x",
        ",f x",
        ";f x",
        "!",
        "%",
        "\x0c!rm x",
        "# \x0c!rm x",
        "\u2028!rm",
    ),
    *(
        "if x:",
        "    pass",
        "",
        "   ",
        "\t!ls",
        "'a' \\",
        "% b",
        "x = '''%s'''",
        "lambda: 0",
        "@f",
        "\x1c%sx rm",
        "a=\\",
        "!rm",
    ),
]
cells = st.lists(st.sampled_from(LINES), max_size=8).flatmap(
    lambda lines: st.sampled_from(["\n", "\r\n", "\r"]).map(lambda end: end.join(lines))
)


def compiled(text: str) -> str | None:
    """What Python makes of a text, or None where it does not compile."""
    try:
        return ast.dump(ast.parse(text))
    except (SyntaxError, ValueError):
        return None


@settings(max_examples=1_500, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(code=cells)
def test_the_policy_reads_the_code_that_ipython_will_run(code: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = compiled(TransformerManager().transform_cell(code))
        except Exception:
            expected = None
        try:
            actual = compiled(cell(code, Budget()).python)
        except NotRun:
            actual = None
    assert actual == expected


@pytest.mark.parametrize("code", ["rm -rf x", "rm /tmp/x", "sx rm x", "system rm x", "  rm x", "rm x\n"])
def test_magics_that_ipython_finds_without_their_percent_sign_are_read_as_such(code: str) -> None:
    assert [violation.rule for violation in check(code, "python", "strict")] == ["bash-files"]
