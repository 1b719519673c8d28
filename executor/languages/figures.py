"""The matplotlib backend of a worker: draws without a screen, and hands open figures over as pictures.

Loaded by pyplot as `module://executor.languages.figures`; `on_show` is called by `plt.show()` and `fig.show()`.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable, Iterator
from typing import IO, Any, cast
from weakref import WeakSet

import matplotlib as mpl
import numpy as np
import PIL.Image
from matplotlib import pyplot
from matplotlib._pylab_helpers import Gcf
from matplotlib.animation import Animation
from matplotlib.backend_bases import FigureManagerBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox, IdentityTransform

BACKEND = f"module://{__name__}"
MAX_PIXELS = 25_000_000
"""Figures with more pixels are drawn with fewer dots per inch: 100 MB of memory for one drawing must be enough."""
MAX_BORDER = 500
"""Pixels that are looked at beyond the figure's edge, for legends and labels that stand out of it."""
MIN_OVERHANG = 0.25
"""Inches that something must stand out for the picture to be enlarged; up to half a tick label is cut, as savefig does.
So most pictures are exactly what savefig makes, and no legend or axis label is lost."""
ANIMATION_SECONDS = 1.0
MAX_FRAMES = 100
MAX_ALT = 600
"""Characters of a picture's description."""

on_show: Callable[[Figure | None], None] | None = None
"""Takes the figure to show, or None for all that are open."""

_GUI = frozenset({"tkagg", "tkcairo", "qtagg", "qt5agg", "qt4agg", "gtk3agg", "gtk4agg", "wxagg", "macosx", "webagg"})
_shown: WeakSet[Animation] = WeakSet()
_PLACES = frozenset({"figure pixels", "figure points", "subfigure pixels", "subfigure points"})
_clock = time.monotonic
_sleep = time.sleep
_destroy = Gcf.destroy
_managers = Gcf.get_all_fig_managers


class _Nowhere(io.RawIOBase):
    """Takes what the canvas writes: the pixels are read from its renderer, without a copy."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return len(data)


class FigureManager(FigureManagerBase):
    """Where a window would be, hands the figure over."""

    def show(self) -> None:
        """Show this figure; `fig.show()` comes here."""
        if on_show is not None:
            on_show(self.canvas.figure)

    @classmethod
    def pyplot_show(cls, *, block: bool | None = None) -> None:
        """Show all open figures; `plt.show()` comes here, there is nothing to block for."""
        if on_show is not None:
            on_show(None)


class FigureCanvas(FigureCanvasAgg):
    """Agg, with our manager."""

    manager_class = FigureManager


def install() -> None:
    """Make this the backend, and the only one: there is no screen that another one could draw on."""
    pyplot.switch_backend(BACKEND)
    for owner, name, ours in ((pyplot, "switch_backend", _use), (mpl, "use", _use), (pyplot, "pause", _pause)):
        setattr(owner, name, ours)


def _use(backend: object = None, *args: object, **kwargs: object) -> None:
    """Other backends are ignored; savefig writes every format whatever the backend."""
    name = str(kwargs.get("newbackend", backend)).lower()
    if name in _GUI:
        warnings.warn(f"There is no screen for {backend}: figures come back as pictures.", UserWarning, stacklevel=2)


def _pause(interval: float) -> None:
    """Wait without showing: every turn of a drawing loop would be a picture otherwise."""
    _sleep(max(0.0, interval))


def open_figures() -> list[Figure]:
    """The figures that pyplot holds open, by number."""
    return [manager.canvas.figure for manager in sorted(_managers(), key=lambda manager: _number(manager.num))]


def any_open() -> bool:
    """Whether pyplot holds a figure open."""
    return bool(_managers())


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def close(figure: Figure) -> None:
    """Forget `figure` as `plt.close(figure)` does; the object stays usable."""
    for manager in list(_managers()):
        if manager.canvas.figure is figure:
            _destroy(manager)


def empty(figure: Figure) -> bool:
    """Whether there is nothing to see in `figure`: somebody made it, or asked for the current one, and let it be."""
    return not figure.axes and all(child is figure.patch for child in figure.get_children())


def unchanged(figure: Figure) -> bool:
    """Whether nothing was changed since `draw`."""
    return not figure.stale


def draw(figure: Figure) -> PIL.Image.Image:
    """`figure` as `savefig` draws it, larger only where something stands out of its edge.

    Raises whatever the figure's artists raise.
    """
    try:
        return _draw(figure)
    except Warning:
        # the guest turned warnings into errors; how we draw is none of its tests
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _draw(figure)


def _draw(figure: Figure) -> PIL.Image.Image:
    for animation in _animations(figure):
        _advance(animation)
    former = figure.canvas
    canvas = FigureCanvasAgg(figure)
    try:
        dpi = mpl.rcParams["savefig.dpi"]
        dpi = float(figure.dpi if dpi == "figure" else dpi)
        width, height = figure.get_size_inches()
        pixels = width * dpi * height * dpi
        if pixels > MAX_PIXELS:
            dpi *= (MAX_PIXELS / pixels) ** 0.5
        if mpl.rcParams["savefig.bbox"] == "tight" or pixels > MAX_PIXELS / 4 or _bound_to_pixels(figure):
            canvas.print_figure(cast(IO[bytes], _Nowhere()), format="rgba", dpi=dpi)
            return PIL.Image.fromarray(np.array(canvas.renderer.buffer_rgba()))
        inner_width, inner_height = int(width * dpi), int(height * dpi)
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()  # as savefig does: layouts come closer to their aim with every drawing
        across, along = _border(inner_width, int(dpi)), _border(inner_height, int(dpi))
        # whole pixels of border, counted from the lower left: inside it every pixel is the one that savefig makes
        box = Bbox([[-across / dpi, -along / dpi], [(inner_width + across) / dpi, (inner_height + along) / dpi]])
        try:
            canvas.print_figure(cast(IO[bytes], _Nowhere()), format="rgba", dpi=dpi, bbox_inches=box)
        except Exception:
            # places of axes that need a renderer to be found get none with a box (matplotlib._tight_bbox.adjust_bbox)
            canvas.print_figure(cast(IO[bytes], _Nowhere()), format="rgba", dpi=dpi)
            return PIL.Image.fromarray(np.array(canvas.renderer.buffer_rgba()))
        drawn = np.asarray(canvas.renderer.buffer_rgba())
        return PIL.Image.fromarray(_trimmed(drawn, across, along, inner_width, inner_height, MIN_OVERHANG * dpi))
    finally:
        figure.set_canvas(former)
        figure.stale = False


def _bound_to_pixels(figure: Figure) -> bool:
    """Whether something lies at pixels of the canvas, or is wrapped at its edge: a border would move it."""
    texts = [*figure.texts, *(text for axes in figure.axes for text in (*axes.texts, axes.title))]
    return (
        bool(figure.images)
        or any(text.get_wrap() or _in_pixels(text) for text in texts)
        or any(isinstance(child.get_transform(), IdentityTransform) for child in (*figure.artists, *figure.patches))
    )


def _in_pixels(text: Any) -> bool:
    """Whether an annotation names pixels (or points) of the figure as its place."""
    places = (getattr(text, "xycoords", None), getattr(text, "anncoords", None))
    return any(isinstance(place, str) and place in _PLACES for each in places for place in _parts(each))


def _parts(place: Any) -> tuple[Any, ...]:
    return place if isinstance(place, tuple) else (place,)


def _border(side: int, tile: int) -> int:
    """Pixels to draw beyond one side: whole tiles of a hatch, which Agg lays out from the corner, an inch each."""
    most = min(MAX_BORDER, side // 2)
    return most // tile * tile if 0 < tile <= most else most


def _trimmed(drawn: Any, across: int, along: int, width: int, height: int, overhang: float) -> Any:
    """The figure's own rectangle, and as much of the border as is drawn on."""
    rows, columns = drawn.shape[:2]
    left, top = across, rows - along - height
    right, bottom = left + width, top + height
    words = drawn.view(np.uint32)[..., 0]
    inked = words != words[0, 0]
    inked[top:bottom, left:right] = False
    down, over = np.flatnonzero(inked.any(axis=1)), np.flatnonzero(inked.any(axis=0))
    if down.size and over.size:
        pad = 8
        left = max(0, over[0] - pad) if over[0] < left - overhang else left
        right = min(columns, over[-1] + 1 + pad) if over[-1] >= right + overhang else right
        top = max(0, down[0] - pad) if down[0] < top - overhang else top
        bottom = min(rows, down[-1] + 1 + pad) if down[-1] >= bottom + overhang else bottom
    return np.ascontiguousarray(drawn[top:bottom, left:right])


def _animations(figure: Figure) -> Iterator[Any]:
    """Animations of the figure that were not shown yet, found by their callback on its end.

    With blit=True they have drawn their first frame already, and no longer wait for the figure's first drawing.
    """
    for reference in list(figure.canvas.callbacks.callbacks.get("close_event", {}).values()):
        owner = getattr(reference(), "__self__", None)
        if isinstance(owner, Animation) and owner not in _shown:
            _shown.add(owner)
            yield owner


def _advance(animation: Any) -> None:
    """Bring an animation to its last frame, or as far as a second goes: its first one is empty more often than not."""
    until = _clock() + ANIMATION_SECONDS
    animation._draw_was_started = True
    animation._init_draw()
    for count, frame in enumerate(animation.new_saved_frame_seq()):
        if count >= MAX_FRAMES or _clock() > until:
            break
        animation._draw_frame(frame)


def describe(figure: Figure) -> str:
    """What a reader who cannot see the picture should know: titles, axis labels, legend, what is drawn."""
    parts = []
    title = figure.get_suptitle()
    if title:
        parts.append(f"“{title}”")
    shown = [axes for axes in figure.axes if axes.get_visible()]
    if len(shown) > 1:
        parts.append(f"{len(shown)} axes")
    for number, axes in enumerate(shown, start=1):
        text = _describe_axes(axes)
        if text:
            parts.append(f"[{number}] {text}" if len(shown) > 1 else text)
    text = "; ".join(parts).replace("\n", " ") or f"figure with {len(shown)} axes"
    return text if len(text) <= MAX_ALT else text[: MAX_ALT - 1] + "…"


def _describe_axes(axes: Any) -> str:
    parts = []
    titles = [axes.get_title(loc) for loc in ("left", "center", "right")]
    if any(titles):
        parts.append("“" + " / ".join(filter(None, titles)) + "”")
    for name in ("x", "y", "z"):
        label = getattr(axes, f"get_{name}label", str)()
        if label:
            parts.append(f"{name}: {label}")
    legend = axes.get_legend()
    if legend is not None:
        labels = [text.get_text() for text in legend.get_texts()][:12]
        parts.append("legend: " + ", ".join(labels))
    kinds = (
        (axes.lines, "line", "lines"),
        (axes.images, "image", "images"),
        (axes.patches, "bar or patch", "bars or patches"),
        (axes.collections, "point set or area", "point sets or areas"),
    )
    drawn = [f"{len(all_)} {one if len(all_) == 1 else many}" for all_, one, many in kinds if all_]
    if drawn:
        parts.append(" and ".join(drawn))
    return ", ".join(parts)
