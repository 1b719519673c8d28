"""Operations page: its tables are those of the code, its links lead somewhere, its words exist."""

from __future__ import annotations

import re

import pytest

from executor.settings import documented
from monitoring.journal import Journal
from monitoring.reference import PAGE, event_kinds, events_table, metrics_table, renewed
from tests.monitoring.conftest import Watched

TEXT = PAGE.read_text()


def test_the_tables_of_metrics_and_events_are_made_from_the_code() -> None:
    assert renewed(TEXT) == TEXT, "run: python -m monitoring.reference"


def test_the_tables_name_everything_with_its_meaning(watched: Watched) -> None:
    metrics = metrics_table()
    for family in watched.metrics.registry.collect():
        assert f"| `{family.name}" in metrics
        assert len(family.documentation) > 10
    events = events_table()
    assert len(event_kinds()) >= 14
    for kind in event_kinds():
        assert f"| `{kind.__name__}` |" in events


def test_a_page_without_a_place_for_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for the table of metrics"):
        renewed("nothing")


def test_every_line_that_the_journal_writes_is_explained(watched: Watched) -> None:
    source = "".join(map(str, _constants(Journal)))
    for name in ("execution", "call", "violation", "session opened", "session closed", "fault", "access refused"):
        assert name in source
        assert f"`{name}`" in TEXT


def test_links_within_the_page_and_to_files_lead_somewhere() -> None:
    headings = {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^#+ (.*)$", TEXT, re.M)}
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        if target.startswith("#"):
            assert target[1:] in headings, target
        else:
            assert (PAGE.parent / target).exists(), target


def test_settings_and_metrics_that_the_page_names_exist() -> None:
    known = {name for name, _, _ in documented()} | {"HF_TOKEN", "OOM"}
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})(?:=[^`]*)?`", TEXT))
    assert named <= known, named - known
    table = metrics_table()
    for metric in re.findall(r"`(interpreter_\w+)`", TEXT):
        assert f"`{metric}`" in table


def _constants(kind: type) -> list[object]:
    found: list[object] = []
    for value in vars(kind).values():
        if code := getattr(value, "__code__", None):
            found += code.co_consts
    return found
