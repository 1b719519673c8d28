"""Interactive figures: their specifications as JSON, and words for who cannot see them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

PLOTLY = "application/vnd.plotly.v1+json"
VEGA = re.compile(r"application/vnd\.vega(?:lite)?\.v\d{1,3}(?:\.[\d.]{1,10})?\+json")
MAX_WORDS = 400
"""Characters of a description."""
_LISTED = 8
_AXIS = re.compile(r"[xyz]axis\d{0,3}")
_SCHEMA = re.compile(r".*/(vega|vega-lite)/v(\d{1,3})\b")


def specification(value: object) -> dict[str, Any]:
    """An Altair chart as a bundle with its Vega-Lite JSON, which it leaves out itself; empty for anything else."""
    if type(value).__module__.partition(".")[0] != "altair" or not callable(convert := getattr(value, "to_dict", None)):
        return {}
    try:
        chart = convert()
    except Exception:
        return {}  # a chart that is not finished; its own text says what it is
    schema = _SCHEMA.match(str(chart.get("$schema", ""))) if isinstance(chart, dict) else None
    return {f"application/vnd.{schema[1].replace('-', '')}.v{schema[2]}+json": chart} if schema else {}


def chart_words(data: Mapping[str, Any]) -> str:
    """What an interactive figure in `data` shows: kind, title, traces or marks, axes; "" where there is none."""
    for mime, chart in data.items():
        if not isinstance(chart, Mapping):
            continue
        if mime == PLOTLY:
            return _bounded(f"Interactive plotly figure{_plotly(chart)}")
        if VEGA.fullmatch(mime):
            return _bounded(f"Interactive Vega chart{_vega(chart)}")
    return ""


def _plotly(chart: Mapping[str, Any]) -> str:
    layout = _mapping(chart.get("layout"))
    parts = [_titled(layout.get("title"))]
    traces = [_mapping(trace) for trace in _items(chart.get("data"))]
    kinds = Counter(str(trace.get("type", "scatter"))[:30] for trace in traces)
    drawn = ", ".join(f"{number} {kind}" for kind, number in kinds.most_common(_LISTED))
    parts.append(f": {drawn}" if drawn else ": nothing drawn")
    names = [_words(trace["name"]) for trace in traces if trace.get("name")]
    if names:
        parts.append(f", named {', '.join(names[:_LISTED])}{' …' if len(names) > _LISTED else ''}")
    for key, axis in layout.items():
        if isinstance(key, str) and _AXIS.fullmatch(key) and (title := _text(_mapping(axis).get("title"))):
            parts.append(f", {key.replace('axis', '')}: {title}")
    return "".join(parts)


def _vega(chart: Mapping[str, Any]) -> str:
    parts = [_titled(chart.get("title"))]
    layers = [each for key in ("layer", "hconcat", "vconcat", "concat") for each in _items(chart.get(key))] or [chart]
    marks = []
    for layer in map(_mapping, layers[:_LISTED]):
        mark = layer.get("mark")
        mark = _mapping(mark).get("type") if isinstance(mark, Mapping) else mark
        channels = [
            f"{channel}: {_words(field)}"
            for channel, encoded in _mapping(layer.get("encoding")).items()
            if (field := _mapping(encoded).get("field") or _mapping(encoded).get("aggregate"))
        ]
        marks.append(" ".join(filter(None, [_words(mark) if mark else "", f"({', '.join(channels[:_LISTED])})"])))
    parts.append(f": {'; '.join(marks)}")
    return "".join(parts)


def _titled(title: Any) -> str:
    text = _text(title)
    return f" “{text}”" if text else ""


def _text(title: Any) -> str:
    return _words(_mapping(title).get("text", "") if isinstance(title, Mapping) else title or "")


def _words(value: Any) -> str:
    return " ".join(re.sub(r"<[^>]*>", " ", str(value)[:300]).split())[:100]


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[Any]:
    return list(value[:1_000]) if isinstance(value, list | tuple) else []


def _bounded(text: str) -> str:
    return text if len(text) <= MAX_WORDS else text[: MAX_WORDS - 1] + "…"
