"""docs/deploy.md says what the code does."""

from __future__ import annotations

import re

import pytest
from packaging.utils import canonicalize_name

from deploy.bundle import PROJECT
from deploy.commands import COMMANDS
from deploy.errors import Exit
from deploy.hardware import PRICES
from deploy.requirements import direct

TEXT = (PROJECT / "docs" / "deploy.md").read_text()


def rows(heading: str) -> list[str]:
    """First cells of the table whose head begins with `heading`."""
    table = TEXT.split(f"\n| {heading} |")[1].split("\n\n")[0]
    return re.findall(r"^\| `?(\w[\w-]*)`? \|", table, re.MULTILINE)


def test_every_command_is_told_and_no_other() -> None:
    assert rows("command") == list(COMMANDS)


def test_every_exit_code_is_told_and_no_other() -> None:
    assert [int(code) for code in rows("code")] == sorted(int(code) for code in Exit)


def test_every_direct_dependency_has_a_reason() -> None:
    assert sorted(map(canonicalize_name, rows("package"))) == sorted(
        canonicalize_name(r.name) for r in direct(PROJECT / "pyproject.toml")
    )


@pytest.mark.parametrize("price", re.findall(r"\d+ USD a month", PRICES))
def test_prices_are_those_that_the_messages_name(price) -> None:
    assert price in TEXT


def test_files_that_it_points_to_are_there() -> None:
    for target in re.findall(r"\]\(((?:\.\./)?[\w./-]+)\)", TEXT):
        assert (PROJECT / "docs" / target).exists(), target


def test_the_workflow_calls_commands_and_options_that_exist() -> None:
    workflow = (PROJECT / ".github" / "workflows" / "deploy.yml").read_text()
    called = re.findall(r"-m deploy (\w+)((?: --[\w-]+)*)", workflow)
    assert called
    from deploy.arguments import parser

    for command, options in called:
        parser().parse_args([command, *options.split()])
