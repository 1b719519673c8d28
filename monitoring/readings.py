"""Readings: metrics that are read when somebody asks, not counted as things happen."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

Values = float | None | Mapping[str, float]
"""One value, none where it cannot be read, or one for each value of the reading's label."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric: `kind` is `gauge` or `counter`, `label` the name of its one label, empty for none."""

    name: str
    help: str
    read: Callable[[], Values]
    kind: str = "gauge"
    label: str = ""


class Readings(Collector):
    """Collects readings; what cannot be read now is left out of the answer, and the rest is given."""

    def __init__(self, readings: Iterable[Reading]) -> None:
        self._readings = tuple(readings)

    def describe(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The metrics without values, for the registry's check of names."""
        return (_family(reading) for reading in self._readings)

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """The metrics with what is read now."""
        for reading in self._readings:
            try:
                values = reading.read()
            except (OSError, ValueError):
                continue  # a file that this kernel does not have, or not in this form
            family = _family(reading)
            if isinstance(values, Mapping):
                for label, value in values.items():
                    family.add_metric([label], value)
            elif values is not None:
                family.add_metric([], values)
            if family.samples:
                yield family


def _family(reading: Reading) -> GaugeMetricFamily | CounterMetricFamily:
    kind = CounterMetricFamily if reading.kind == "counter" else GaugeMetricFamily
    return kind(reading.name, reading.help, labels=[reading.label] if reading.label else None)
