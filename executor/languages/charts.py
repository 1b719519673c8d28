"""Interactive figures of plotly and Altair: as bundles, as pictures where that can be, and in words."""

from __future__ import annotations

import functools
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

PLOTLY = "application/vnd.plotly.v1+json"
VEGA = re.compile(r"application/vnd\.vega(?:lite)?\.v\d{1,3}(?:\.[\d.]{1,10})?\+json")
MAX_WORDS = 400
"""Characters of a description."""
_LISTED = 8
_AXIS = re.compile(r"[xyz]axis\d{0,3}")
_SCHEMA = re.compile(r".*/(vega|vega-lite)/v(\d{1,3})\b")

DISPLAYED_BY_US = (
    ("plotly.basedatatypes", "BaseFigure"),
    ("altair.vegalite.v5.api", "TopLevelMixin"),
    ("altair.vegalite.v6.api", "TopLevelMixin"),
)
"""Modules and classes whose objects IPython hands over to us instead of asking them to show themselves."""
NO_PICTURE = (
    "plotly needs a browser to make a picture, and there is none here, with kaleido or without: the user sees the "
    "interactive figure, you these words. Draw with matplotlib what you want to see or keep as a picture, or keep the "
    "figure itself with fig.write_html."
)
_CONVERTER = "vl_convert"  # PyPI's vl-convert-python: Vega's own renderer without a browser
_SCALE = 2
_PLOTLY_IO = "plotly.io"
_mro_of = type.__dict__["__mro__"].__get__
_STATIC = frozenset({"png", "jpg", "jpeg", "svg", "webp", "pdf", "eps"})


def is_chart(value: object) -> bool:
    """Whether `value` is a figure of plotly's or a chart of Altair's."""
    return _library(value) != ""


def _library(value: object) -> str:
    for kind in _mro_of(type(value)):
        root = str(kind.__dict__.get("__module__")).partition(".")[0]
        if root == "altair" and hasattr(value, "to_dict"):
            return root
        if root == "plotly" and hasattr(value, "to_plotly_json") and hasattr(value, "to_html"):
            return root
    return ""


def bundle(value: Any) -> tuple[dict[str, Any], list[Exception]]:
    """A chart as specification (JSON), HTML and words, and the errors of what could not be made."""
    data: dict[str, Any] = {}
    errors: list[Exception] = []
    makers = _PLOTLY_FORMS if _library(value) == "plotly" else _ALTAIR_FORMS
    for make in makers:
        try:
            data.update(make(value))
        except Exception as error:
            # an unfinished chart, or the guest's own subclass: the other form would fail, too, and not so quietly
            errors.append(error)
            break
    data["text/plain"] = chart_words(data) or data.get("text/plain") or f"<{type(value).__name__}>"
    return data, errors


def _plotly_json(value: Any) -> dict[str, Any]:
    return {PLOTLY: json.loads(value.to_json())}


def _plotly_html(value: Any) -> dict[str, Any]:
    # its library is loaded by the browser of whoever looks; inside the HTML it would be 4 MB
    return {"text/html": value.to_html(full_html=False, include_plotlyjs="cdn", default_height="525px")}


def _altair_json(value: Any) -> dict[str, Any]:
    chart = value.to_dict()
    schema = _SCHEMA.match(str(chart.get("$schema", ""))) if isinstance(chart, dict) else None
    return {f"application/vnd.{schema[1].replace('-', '')}.v{schema[2]}+json": chart} if schema else {}


def _altair_html(value: Any) -> dict[str, Any]:
    made = value._repr_mimebundle_() if hasattr(value, "_repr_mimebundle_") else {}
    made = made[0] if isinstance(made, tuple) else made
    return dict(made) if isinstance(made, Mapping) else {}


_PLOTLY_FORMS: tuple[Callable[[Any], dict[str, Any]], ...] = (_plotly_json, _plotly_html)
_ALTAIR_FORMS: tuple[Callable[[Any], dict[str, Any]], ...] = (_altair_json, _altair_html)


def static_picture(value: Any) -> bytes | None:
    """An Altair chart as PNG where the session has `vl-convert-python`; None where there is no way to a picture.

    Raises whatever the converter raises.
    """
    if _library(value) != "altair" or not hasattr(value, "save") or find_spec(_CONVERTER) is None:
        return None
    buffer = io.BytesIO()
    value.save(buffer, format="png", scale_factor=_SCALE)
    return buffer.getvalue()


def needs_browser(value: object) -> bool:
    """Whether only a browser could make a picture of the chart."""
    return _library(value) == "plotly"


class _OnPlotly(MetaPathFinder):
    """Calls `ready` with the module `plotly.io` right after whoever imports it first."""

    def __init__(self, ready: Callable[[ModuleType], None]) -> None:
        self._ready = ready

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _PLOTLY_IO:
            return None
        sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not self]
        spec = find_spec(name)
        if spec is not None and isinstance(spec.loader, Loader):
            execute = spec.loader.exec_module

            def executed(module: ModuleType) -> None:
                execute(module)
                self._ready(module)

            spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec


def watch_plotly(show: Callable[[object], None], note: Callable[[str], None]) -> None:
    """From its import on, let plotly's `show()` call `show`, and tell by `note` why it can make no pictures.

    Its own `show()` wants nbformat, a terminal's browser, or a server: none is there, and none is needed.
    """

    def ready(module: ModuleType) -> None:
        def shown(figure: Any, renderer: Any = None, *_: Any, **__: Any) -> None:
            if str(renderer).partition("+")[0] in _STATIC:
                note(NO_PICTURE)
            show(figure)

        def explained(export: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(export)
            def call(*args: Any, **kwargs: Any) -> Any:
                try:
                    return export(*args, **kwargs)
                except Exception:
                    note(NO_PICTURE)
                    raise

            return call

        untyped: Any = module
        untyped.show = shown
        for name in ("to_image", "write_image", "write_images"):
            if callable(export := getattr(module, name, None)):
                setattr(module, name, explained(export))

    if (loaded := sys.modules.get(_PLOTLY_IO)) is not None:
        ready(loaded)
    else:
        sys.meta_path.insert(0, _OnPlotly(ready))


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
        encoded = f"({', '.join(channels[:_LISTED])})" if channels else ""
        marks.append(" ".join(filter(None, [_words(mark) if mark else "", encoded])))
    parts.append(f": {'; '.join(filter(None, marks))}" if any(marks) else "")
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
