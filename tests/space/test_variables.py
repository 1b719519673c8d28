"""The variables that are known of a session without running anything."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from executor.results import ExecutionResult, HistoryEntry, Language, Variable
from space.variables import known_variables
from tests.space.served import served


def cell(code: str, *names: str, language: Language = "python", **fields: Any) -> HistoryEntry:
    told = tuple(Variable(name, "int", "= 1", "new") for name in names)
    values = {"status": "ok", "session_id": "s", "execution_id": "e", "language": language, "variables": told, **fields}
    return HistoryEntry(code=code, language=language, result=ExecutionResult(**values), timestamp=0.0)


def names(*entries: HistoryEntry) -> list[str]:
    return [variable.name for variable in known_variables(entries)]


async def test_all_variables_of_a_real_session_are_known_with_their_last_value(tmp_path: Path) -> None:
    async with served(tmp_path) as space:
        for code in ("a = 1\nb = [1, 2]", "c = 'x'", "a = 2", "b.append(3)", "del c", "print(a)"):
            await space.run(code)
        found = known_variables(await space.executor.history(space.grant.session_id, owner="alice"))
    assert [(v.name, v.type, v.summary) for v in found] == [("b", "list", "of 3"), ("a", "int", "= 2")]


def test_what_was_deleted_or_reset_is_gone() -> None:
    made = cell("…", "a", "b", "c", "d")
    assert names(made, cell("if x:\n    del a, c  # done")) == ["d", "b"]
    assert names(made, cell("del (b)")) == ["d", "c", "a"]
    assert names(made, cell("%reset -f"), cell("e = 1", "e")) == ["e"]
    assert names(made, cell("del a\na = 2", "a")) == ["a", "d", "c", "b"]


@pytest.mark.parametrize(
    ("code", "left"),
    [
        ("del(a)", "b"),
        ("\n\n\tdel (a , b ) ; c = 1", ""),
        ("del a,", "b"),
        ("del a  # b; c\r\nx = 1", "b"),
        ("del a; del b", "b"),
        ("del a\n\n\n  # why", "b"),
        ("del (a,\n     b)", "b"),
        ("del a[0]", "ba"),
        ("del a.b, b", "ba"),
        ("del a, b[0]", "ba"),
        ("delta = a\ndel_ = b\ndel", "ba"),
        ("x = 1; del a", "ba"),
        ("# del a\nprint('del a')", "ba"),
        ("x = 1\n  %reset -f", ""),
        ("get_ipython().reset()", ""),
        ("%resetting", "ba"),
        ("%reset_selective -f a", "ba"),
    ],
)
def test_what_is_read_as_taken_away(code: str, left: str) -> None:
    assert "".join(names(cell("…", "a", "b"), cell(code))) == left


@pytest.mark.parametrize(
    "code",
    [
        "'!'\ndel" + " " * 19_000 + "!",
        "'!'\ndel (" + " (" * 10_000 + "!",
        "'!'\ndel a" + " ," * 10_000 + " " * 10_000 + "!",
        "'!'\ndel a)" + " " * 20_000 + "!",
        "\n" * 20_000 + "x",
        "\t\n" * 20_000 + "x",
        " " * 20_000 + "x",
        "%reset" * 4_000,
    ],
    ids=lambda code: repr(code[:12]),
)
def test_no_code_makes_it_slow(code: str) -> None:
    history = [cell("…", "a"), *[cell(code)] * 100]
    assert seconds_of(lambda: known_variables(history)) < 2


def test_no_name_that_was_lost_makes_it_slow() -> None:
    restored = f"Session restored: df; lost: {'x' * 40_000}."
    history = [cell("…", "a"), *[cell("x", notices=(restored,))] * 20]
    assert seconds_of(lambda: known_variables(history)) < 2


def seconds_of(act: Callable[[], object]) -> float:
    began = time.process_time()  # what else runs on the machine takes none of it
    act()
    return time.process_time() - began


def test_the_end_of_the_process_takes_all_and_a_restored_session_what_it_names() -> None:
    made = cell("…", "df", "conn", "lock")
    for status in ("crashed", "memory", "lost"):
        assert names(made, cell("boom", status=status)) == []
    assert (
        names(made, cell("x", status="timeout", notices=("Its variables and imports are lost; files are kept.",))) == []
    )
    assert names(made, cell("x = 1", "x", stderr="… Its variables and imports are lost; …")) == ["x"]
    restored = "Session restored: df; lost: conn (open socket): run cell 3 again, lock (a lock)."
    assert names(made, cell("x = 1", "x", notices=(restored,))) == ["x", "df"]
    assert names(made, cell("x", language="javascript", status="crashed")) == ["lock", "conn", "df"]
