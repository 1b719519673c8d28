"""Small line charts as inline SVG: they follow the page's colours, dark or light, and need no script."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from html import escape

Points = Sequence[tuple[float, float | None]]
"""(seconds since 1970, value) in order; None where there is no value."""

_WIDTH, _HEIGHT = 420.0, 150.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 8.0, 10.0, 22.0
_COLOURS = ("var(--ci-line-1)", "var(--ci-line-2)", "var(--ci-line-3)")


def line_chart(title: str, lines: Mapping[str, Points], *, words: Callable[[float], str], span: float = 3600.0) -> str:
    """A chart of at most three named lines over the last `span` seconds; `words` says a value of the vertical axis."""
    values = [value for points in lines.values() for _, value in points if value is not None]
    ends = [points[-1][0] for points in lines.values() if points]
    end = max(ends, default=time.time())
    top = _round_up(max(values, default=0.0))

    def x(at: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (1 - min(span, max(0.0, end - at)) / span)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / top

    parts = []
    for share in (0.0, 0.5, 1.0):
        height = y(top * share)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{height:.1f}" y2="{height:.1f}" class="ci-grid"/>')
        label = escape(words(top * share))
        parts.append(f'<text x="{_LEFT - 5}" y="{height + 4:.1f}" text-anchor="end">{label}</text>')
    for ago, anchor in ((span, "start"), (span / 2, "middle"), (0.0, "end")):
        clock = time.strftime("%H:%M", time.gmtime(end - ago))
        parts.append(f'<text x="{x(end - ago):.1f}" y="{_HEIGHT - 5}" text-anchor="{anchor}">{clock}</text>')
    for colour, points in zip(_COLOURS, lines.values(), strict=False):
        for piece in _pieces(points):
            path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in piece)
            if len(piece) == 1:
                at, value = piece[0]
                parts.append(f'<circle cx="{x(at):.1f}" cy="{y(value):.1f}" r="2" fill="{colour}"/>')
            else:
                parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
    legend = ""
    if len(lines) > 1:
        names = zip(_COLOURS, lines, strict=False)
        legend = "".join(f'<span style="color:{colour}">■</span> {escape(name)} ' for colour, name in names)
    return (
        f'<figure class="ci-chart"><figcaption>{escape(title)} <small>{legend}</small></figcaption>'
        f'<svg viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
        "</figure>"
    )


def _pieces(points: Points) -> list[list[tuple[float, float]]]:
    """The runs of points that have values: a gap is no line."""
    pieces: list[list[tuple[float, float]]] = [[]]
    for at, value in points:
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((at, value))
    return [piece for piece in pieces if piece]


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, … times a power of ten: an axis that can be read."""
    if value <= 0:
        return 1.0
    power = 10.0 ** (len(f"{int(value)}") - 1) if value >= 1 else 1.0
    while value < power / 10:
        power /= 10
    for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0):
        if value <= step * power:
            return step * power
    return 10 * power
