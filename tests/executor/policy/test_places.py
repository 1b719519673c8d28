"""Violations name the line and column of the cell itself, however deep the code is nested in it."""

from __future__ import annotations

import pytest

from executor.policy import check
from executor.results import Language

PLACES: list[tuple[Language, str, tuple[int, int]]] = [
    ("python", "x = 1\nimport os", (2, 8)),
    ("python", "é = 1; import os", (1, 15)),
    ("python", "'é' + eval('1')", (1, 7)),
    ("python", "\n\n!ls\nimport os", (4, 8)),
    ("python", "!ls \\\n  -l\nimport os", (3, 8)),
    ("python", "x = 1\n!ls; rm x", (2, 6)),
    ("python", "if x:\n    !rm x", (2, 6)),
    ("python", "y = !rm x", (1, 6)),
    ("python", "%%bash\nls\n  rm x", (3, 3)),
    ("python", "%%time\nx = 1\nimport os", (3, 8)),
    ("python", "%time eval('1')", (1, 7)),
    ("python", ">>> x = 1\n>>> import os", (2, 12)),
    ("python", "    x = 1\n    import os", (2, 12)),
    ("python", "%%time\n!ls\n%sx rm x", (3, 5)),
    ("python", "import os.path\r\nimport sys", (1, 8)),
    ("bash", "ls\n  rm x", (2, 3)),
    ("bash", "echo é; rm x", (1, 9)),
    ("bash", "bash -c 'ls; rm x'", (1, 14)),
    ("bash", "sh <<EOF\nls\nrm x\nEOF\n", (3, 1)),
    ("bash", "ls | xargs rm", (1, 12)),
    ("javascript", "const a = 1;\n  require('fs')", (2, 3)),
    ("javascript", "'é'; eval('1')", (1, 6)),
]


@pytest.mark.parametrize(("language", "code", "place"), PLACES, ids=[repr(code) for _, code, _ in PLACES])
def test_a_violation_stands_where_the_code_stands(language: Language, code: str, place: tuple[int, int]) -> None:
    first = check(code, language, "strict")[0]
    assert (first.line, first.column) == place


def test_violations_come_in_the_order_of_the_code_each_once_and_at_most_twenty() -> None:
    found = check("import os\n" * 50, "python", "strict")
    assert [violation.line for violation in found] == list(range(1, 21))
