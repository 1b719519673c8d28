"""What each rule of the static policy catches and what it leaves alone, from the table in cases.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from executor.policy import check, rules
from executor.results import LANGUAGES

TABLE = tomllib.loads(Path(__file__).with_name("cases.toml").read_text(encoding="utf-8"))
REFUSED: list[dict[str, Any]] = TABLE["refused"]
ALLOWED: list[dict[str, Any]] = TABLE["allowed"]

DEEP = {"python": "-" * 100_000 + "1", "bash": "xargs " * 40 + "ls", "javascript": "a?" * 1_200_000}
"""Code that cannot be checked in time, or is nested deeper than the readers follow."""
WIDE = {"python": "x = [" + "1," * 20_000 + "]", "bash": "ls\n" * 2_000, "javascript": "[" + "1," * 20_000 + "]"}


def case_id(case: dict[str, Any]) -> str:
    return f"{case['language']}-{case['level']}-{case['code'][:40]!r}"


@pytest.mark.parametrize("case", REFUSED, ids=case_id)
def test_code_is_refused_by_its_rules_with_a_reason_and_a_place(case: dict[str, Any]) -> None:
    lines = case["code"].split("\n")
    # what the standard policy refuses, the strict one refuses as well
    for level in ("strict",) if case["level"] == "strict" else ("standard", "strict"):
        found = check(case["code"], case["language"], level)
        assert set(case["rules"]) <= {violation.rule for violation in found}
        for violation in found:
            reason = next(rule.reason for rule in rules() if rule.id == violation.rule)
            assert reason in violation.message
            assert violation.layer == "policy"
            assert 1 <= violation.line <= len(lines)
            assert 1 <= violation.column <= len(lines[violation.line - 1]) + 1
    assert {violation.rule for violation in check(case["code"], case["language"], case["level"])} == set(case["rules"])


@pytest.mark.parametrize("case", ALLOWED, ids=case_id)
def test_code_that_only_looks_like_it_is_left_alone(case: dict[str, Any]) -> None:
    levels = ("strict", "standard") if case["level"] == "strict" else ("standard",)
    for level in levels:
        assert check(case["code"], case["language"], level) == ()


@pytest.mark.parametrize("case", REFUSED, ids=case_id)
def test_off_refuses_nothing(case: dict[str, Any]) -> None:
    assert check(case["code"], case["language"], "off") == ()


def test_every_rule_has_a_case_that_it_catches_and_one_that_it_lets_pass() -> None:
    caught = {rule for case in REFUSED for rule in case["rules"]}
    near = {case["near"] for case in ALLOWED}
    ids = {rule.id for rule in rules()}
    complexity = {rule.id for rule in rules() if rule.match == "complexity"}
    assert ids - complexity - caught == set()
    assert ids - complexity - near == set()
    assert caught | near <= ids
    assert complexity == {f"{language}-too-complex" for language in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_code_too_complex_to_be_checked_is_refused_with_a_sentence_and_wide_code_is_not(language: Any) -> None:
    (violation,) = check(DEEP[language], language, "standard")
    assert violation.rule == f"{language}-too-complex"
    assert "split it into smaller" in violation.message
    assert check(WIDE[language], language, "strict") == ()


def test_rule_ids_are_unique_and_begin_with_their_language() -> None:
    ids = [rule.id for rule in rules()]
    assert len(ids) == len(set(ids))
    for rule in rules():
        assert rule.id.startswith(f"{rule.language}-")
        assert set(rule.levels) <= {"strict", "standard"}
        assert "strict" in rule.levels
        assert not rule.reason.endswith(".")


def test_the_lists_of_the_recipe_are_all_refused_by_the_strict_policy() -> None:
    modules = ["subprocess", "os", "sys", "shutil", "glob", "pickle", "marshal", "imp", "importlib"]
    assert all(check(f"import {module}", "python", "strict") for module in modules)
    calls = ["__import__('x')", "exec('x')", "eval('x')", "open('x')", "file('x')", "x.__subclasses__()"]
    assert all(check(call, "python", "strict") for call in calls)
    programs = ["rm", "sudo", "chmod", "chown", "dd", "mkfs", "fdisk", "curl", "wget", "ssh", "scp", "nc", "netcat"]
    assert all(check(f"{program} x", "bash", "strict") for program in programs)


def test_the_network_rule_says_what_to_do_instead() -> None:
    (violation,) = check("curl x", "bash", "standard")
    assert violation.message.startswith("`curl` is not allowed here: there is no network here; use install_packages")
