"""Reference: the tables of docs/operations.md that come from the code; `python -m monitoring.reference` writes them."""

from __future__ import annotations

import inspect
import re
from dataclasses import fields
from pathlib import Path

from executor import events
from executor.settings import Settings
from monitoring.host import Host
from monitoring.live import Live
from monitoring.metrics import PREFIX, Metrics
from monitoring.subscription import own_readings

PAGE = Path(__file__).parent.parent / "docs" / "operations.md"


def instruments() -> Metrics:
    """All that the app exposes, nothing of it counted yet."""
    metrics = Metrics(Settings(), Live())
    metrics.read(Host(Path("/"), Path("/")).readings(PREFIX))
    metrics.read(own_readings(events.Bus(), None))
    return metrics


def metrics_table() -> str:
    """Name, type, labels and meaning of every metric."""
    metrics = instruments()
    rows = ["| metric | type | labels | meaning |", "| --- | --- | --- | --- |"]
    for metric in sorted(metrics.registry.collect(), key=lambda metric: metric.name):
        name = f"{metric.name}_total" if metric.type == "counter" else metric.name
        labels = ", ".join(f"`{label}`" for label in metrics.labels.get(metric.name, ()))
        rows.append(f"| `{name}` | {metric.type} | {labels} | {metric.documentation} |")
    return "\n".join(rows)


def event_kinds() -> list[type[events.Event]]:
    """Every kind of event, in the order in which `executor.events` has them."""
    found = (value for value in vars(events).values() if isinstance(value, type))
    return [kind for kind in found if issubclass(kind, events.Event) and kind is not events.Event]


def events_table() -> str:
    """Name, meaning and fields of every event."""
    rows = ["| event | meaning | fields |", "| --- | --- | --- |"]
    common = {f.name for f in fields(events.Event)}
    for kind in event_kinds():
        meaning = " ".join((inspect.getdoc(kind) or "").split())
        named = ", ".join(f"`{f.name}`" for f in fields(kind) if f.name not in common)
        rows.append(f"| `{kind.__name__}` | {meaning} | {named} |")
    return "\n".join(rows)


def renewed(page: str) -> str:
    """`page` with its tables made anew; each stands between `<!-- made: name -->` and `<!-- end: name -->`."""
    for name, table in (("metrics", metrics_table()), ("events", events_table())):
        begin, end = f"<!-- made: {name} -->", f"<!-- end: {name} -->"
        pattern = re.compile(re.escape(begin) + r".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(page):
            raise ValueError(f"the page has no place for the table of {name}: put {begin} and {end} into it.")
        page = pattern.sub(lambda _, b=begin, t=table, e=end: f"{b}\n{t}\n{e}", page)  # type: ignore[misc]
    return page


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
