"""Every figure that a cell leaves open comes back once, within the budget, with its full size as a file."""

import base64
import io
import os

import numpy as np
import pytest
from PIL import Image
from python_fixtures import *  # noqa: F403  fixtures


def opened(picture):
    return Image.open(io.BytesIO(base64.b64decode(picture["data"]))).convert("RGB")


def ink(picture):
    """Share of pixels that are not the picture's most common colour."""
    pixels = np.asarray(opened(picture)).reshape(-1, 3)
    _, counts = np.unique(pixels, axis=0, return_counts=True)
    return 1 - counts.max() / len(pixels)


def likeness(one, other):
    """Structural similarity of two pictures, over windows of eight pixels (Wang et al. 2004)."""
    size = (min(one.width, other.width), min(one.height, other.height))
    a, b = (np.asarray(i.convert("L").resize(size, Image.Resampling.BOX), dtype=float) for i in (one, other))
    rows, columns = size[1] // 8 * 8, size[0] // 8 * 8
    a, b = (x[:rows, :columns].reshape(rows // 8, 8, columns // 8, 8).swapaxes(1, 2) for x in (a, b))
    axes = (2, 3)
    mean_a, mean_b = a.mean(axes), b.mean(axes)
    covariance = (a * b).mean(axes) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    return float((top / ((mean_a**2 + mean_b**2 + c1) * (a.var(axes) + b.var(axes) + c2))).mean())


SCRIPTS = {
    "two by two": "fig, ax = plt.subplots(2, 2)\nfor a in ax.flat:\n    a.plot(np.random.rand(20).cumsum())",
    "surface": (
        "ax = plt.figure().add_subplot(projection='3d')\n"
        "ax.plot_surface(*np.meshgrid(range(20), range(20)), np.random.rand(20, 20), cmap='viridis')"
    ),
    "polar": "ax = plt.subplot(projection='polar')\nax.plot(np.linspace(0, 6, 50), np.linspace(0, 1, 50))",
    "contourf": "x = np.linspace(-3, 3, 80)\nplt.contourf(x, x, np.sin(x[:, None]) * np.cos(x))\nplt.colorbar()",
    "imshow": "plt.imshow(np.random.rand(60, 60), cmap='jet')\nplt.colorbar()",
    "pie": "plt.pie([1, 2, 3], labels=['a', 'b', 'c'], autopct='%1.1f%%')",
    "histogram": "plt.hist(np.random.randn(1000), bins=40, alpha=.5)\nplt.hist(np.random.randn(1000) + 2, bins=40)",
    "log": "plt.loglog([1, 10, 100], [5, 500, 50000], 'o-')\nplt.grid(True, which='both')",
    "errorbars": "plt.errorbar(range(9), range(9), yerr=.5, xerr=.2, capsize=3)",
    "boxplot": "plt.boxplot([np.random.randn(50) for _ in range(5)])",
    "twin axes": "fig, a = plt.subplots()\nb = a.twinx()\na.plot([1, 2, 3], 'r')\nb.plot([30, 10, 20], 'b')",
    "pandas": "pd.DataFrame(np.random.rand(20, 3), columns=list('xyz')).plot.bar(stacked=True);",
    "dates": "pd.Series(range(40), index=pd.date_range('2024-01-01', periods=40)).plot();",
    "pairplot": (
        "import seaborn as sns\nsns.set_theme()\n"
        "sns.pairplot(pd.DataFrame(np.random.rand(40, 3), columns=list('abc')));\n"
    ),
    "heatmap": "import seaborn as sns\nsns.heatmap(np.random.rand(8, 8), annot=True);",
    "constrained": "fig, ax = plt.subplots(2, 1, layout='constrained')\nax[0].set_title('up')\nax[1].set_xlabel('x')",
    "dark": "with plt.style.context('dark_background'):\n    plt.plot([1, 3, 2])",
    "xkcd": "with plt.xkcd():\n    plt.plot([1, 3, 2])",
    "mathtext": r"plt.title(r'$\int_0^\infty e^{-x^2}dx=\frac{\sqrt{\pi}}{2}$')" + "\nplt.plot([1, 2])",
    "subfigures": "f = plt.figure()\nfor s in f.subfigures(1, 2):\n    s.subplots().plot([1, 2, 3])",
    "hatches": "plt.bar(range(5), range(1, 6), hatch='/o', edgecolor='k', facecolor='w')",
    "layout of two passes": (
        "fig, ax = plt.subplots(3, 2, figsize=(6.4, 9.6), layout='constrained')\n"
        "for a in ax[:, 1]: a.imshow(np.random.rand(20, 20))"
    ),
    "axes that need a renderer to be placed": (
        "from mpl_toolkits.axes_grid1.axes_divider import make_axes_area_auto_adjustable\n"
        "a = plt.figure().add_axes((0, 0, 1, 1))\na.set_yticks([0.5], labels=['very long label'])\n"
        "make_axes_area_auto_adjustable(a)"
    ),
    "wrapped title": "plt.figure(figsize=(4, 3))\nplt.plot([1, 2])\nplt.title('many words ' * 12, wrap=True)",
    "annotation at pixels": (
        "plt.plot([1, 2])\n"
        "plt.annotate('here', (1, 2), xytext=(60, 60), textcoords='figure pixels', arrowprops={'arrowstyle': '->'})"
    ),
    "pixels of the canvas": "f = plt.figure()\nf.figimage(np.random.rand(20, 20).repeat(8, 0).repeat(8, 1), 100, 150)",
    "quiver": "x = np.arange(10)\nplt.quiver(*np.meshgrid(x, x), np.random.randn(10, 10), np.random.randn(10, 10))",
    "transparent": "f = plt.figure(facecolor='none')\nf.add_subplot(facecolor='none').plot([1, 2])",
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_typical_scripts_give_one_picture_each_like_savefigs(shared, script):
    cell = shared.run(
        script
        + "\n_held = plt.gcf()\n_b = io.BytesIO()\n_held.savefig(_b, format='png', facecolor=_held.get_facecolor())"
    )
    assert cell.status == "ok", cell.error
    assert len(cell.pictures) == 1
    picture = cell.pictures[0]
    assert 0 < len(picture["data"]) <= 60_000
    assert picture["width"] >= 320
    assert ink(picture) > 0.005
    saved = shared.run("print(base64.b64encode(_b.getvalue()).decode())").out
    reference = Image.open(io.BytesIO(base64.b64decode(saved))).convert("RGBA")
    ground = Image.new("RGBA", reference.size, "white")
    ground.alpha_composite(reference)
    assert likeness(opened(picture), ground.convert("RGB")) > 0.9
    assert (shared.folder / picture["path"]).stat().st_size > 1000


def test_all_open_figures_come_in_number_order_each_once(shared):
    cell = shared.run(
        "plt.figure(3); plt.plot([1]); plt.title('three')\nplt.figure(1); plt.plot([1]); plt.title('one')\n"
        "plt.figure(2); plt.plot([1]); plt.title('two');"
    )
    assert ["one" in p["alt"] or "two" in p["alt"] or "three" in p["alt"] for p in cell.pictures] == [True] * 3
    assert [p["alt"].split("”")[0] for p in cell.pictures] == ["“one", "“two", "“three"]
    assert shared.run("plt.get_fignums()").result == "[]"


def test_show_sends_at_once_and_starts_a_new_figure(shared):
    cell = shared.run(
        "for name in 'ab':\n    plt.plot([1, 2])\n    plt.title(name)\n    plt.show(block=False)\n"
        "print(plt.get_fignums())"
    )
    assert [p["alt"].split(",")[0] for p in cell.pictures] == ["“a”", "“b”"]
    assert cell.out == "[]\n"
    assert cell.err == ""


def test_a_figure_as_last_value_is_not_sent_twice(shared):
    cell = shared.run("fig, ax = plt.subplots()\nax.plot([1, 2])\nfig")
    assert len(cell.displays) == len(cell.pictures) == 1
    assert cell.displays[0]["is_result"]
    cell = shared.run("fig, ax = plt.subplots()\nax.plot([1, 2])\nplt.show()\nfig")
    assert len(cell.pictures) == 1
    assert "same picture as plots/" in cell.result


def test_a_displayed_figure_comes_again_only_when_it_was_changed(shared):
    assert len(shared.run("fig, ax = plt.subplots()\nax.plot([1, 2])\ndisplay(fig)").pictures) == 1
    cell = shared.run("fig, ax = plt.subplots()\nax.plot([1, 2])\ndisplay(fig)\nax.set_title('more');")
    assert ["more" in p["alt"] for p in cell.pictures] == [False, True]
    assert len(shared.run("fig, ax = plt.subplots()\nax.plot([1, 2])\nfig.show()").pictures) == 1


def test_identical_pictures_are_sent_once(shared):
    cell = shared.run("for _ in range(3):\n    plt.figure()\n    plt.plot([1, 2, 3])")
    assert len(cell.pictures) == 1
    assert sum("same picture" in text for text in cell.texts) == 2


def test_figures_of_a_cell_that_raised_come_too(shared):
    cell = shared.run("plt.plot([1, 2])\n1 / 0")
    assert cell.status == "error"
    assert len(cell.pictures) == 1


def test_a_figure_whose_drawing_raises_does_not_hide_the_others(shared):
    cell = shared.run(
        "from matplotlib.text import Text\nclass Bad(Text):\n    def draw(self, renderer):\n"
        "        raise ValueError('cannot draw')\n"
        "plt.figure(); plt.plot([1]); plt.gca().add_artist(Bad(0, 0, 'x'))\nplt.figure(); plt.plot([2, 1]);"
    )
    assert cell.status == "ok"
    assert len(cell.pictures) == 1
    assert "could not be drawn: ValueError: cannot draw" in cell.notices
    assert "line 4, in draw" in cell.err
    assert shared.run("plt.get_fignums()").result == "[]"


def test_figures_outside_of_pyplot_are_shown_when_they_are_the_value(shared):
    cell = shared.run("from matplotlib.figure import Figure\nf = Figure()\nf.subplots().plot([1, 2])\nf")
    assert len(cell.pictures) == 1


def test_empty_figures_are_no_pictures(shared):
    cell = shared.run("plt.figure()")
    assert cell.result == "<Figure size 640x480 with 0 Axes>"
    assert cell.pictures == []
    assert cell.err == ""


def test_legends_outside_of_the_figure_are_not_cut_off(shared):
    inside = shared.run("plt.plot([1, 2], label='name')\nplt.legend();").pictures[0]
    outside = shared.run("plt.plot([1, 2], label='name')\nplt.legend(bbox_to_anchor=(1.3, 1));").pictures[0]
    assert (inside["width"], inside["height"]) == (640, 480)
    assert outside["width"] > 660


def test_the_picture_says_what_it_shows(shared):
    alt = shared.run(
        "plt.plot([1, 2], label='north')\nplt.title('Sales')\nplt.xlabel('month')\nplt.ylabel('EUR')\nplt.legend();"
    ).pictures[0]["alt"]
    for words in ("Sales", "x: month", "y: EUR", "legend: north", "1 line"):
        assert words in alt


def test_thirty_figures_share_the_budget_and_the_rest_is_named(shared):
    cell = shared.run(
        "plt.rcParams['figure.max_open_warning'] = 0\nfor i in range(30):\n    plt.figure()\n"
        "    plt.plot(np.random.rand(50))\n    plt.title(f'figure {i}')"
    )
    assert len(cell.pictures) == 30
    sent = [p for p in cell.pictures if p["data"]]
    assert len(sent) >= 12
    assert all(p["width"] >= 320 for p in sent)
    assert sum(len(p["data"]) for p in sent) <= 110_000
    assert f"No room for {30 - len(sent)} pictures" in cell.notices
    assert all(p["path"] and (shared.folder / p["path"]).exists() for p in cell.pictures)


def test_two_dense_figures_shown_one_by_one_are_both_sent(shared):
    cell = shared.run(
        "for size in ((7, 12), (6, 14)):\n    plt.figure(figsize=size)\n"
        "    plt.scatter(*np.random.rand(2, 900), c=np.random.rand(900), s=400 * np.random.rand(900))\n    plt.show()"
    )
    assert all(picture["data"] and picture["width"] >= 320 for picture in cell.pictures), cell.notices
    assert len(cell.pictures) == 2


def test_the_budget_of_the_call_is_kept(shared):
    cell = shared.run("plt.imshow(np.random.rand(300, 300));", picture_chars=20_000)
    assert 0 < len(cell.pictures[0]["data"]) <= 20_000
    cell = shared.run("plt.plot(np.random.rand(300));", picture_chars=0)
    assert cell.pictures[0]["data"] == ""
    assert cell.pictures[0]["path"] in cell.notices


def test_large_figures_are_scaled_for_the_reader_and_kept_whole(worker):
    cell = worker.run(
        "plt.figure(figsize=(40, 30))\nplt.plot(np.sin(np.linspace(0, 20, 500)), lw=4)\nplt.title('large');", timeout=90
    )
    picture = cell.pictures[0]
    assert 320 <= picture["width"] <= 1600
    assert Image.open(worker.folder / picture["path"]).size == (4000, 3000)
    cell = worker.run("fig, ax = plt.subplots(10, 6, figsize=(12, 20))\nfor a in ax.flat: a.plot(np.random.rand(9))")
    assert cell.pictures[0]["width"] >= 400
    assert "60 axes" in cell.pictures[0]["alt"]


def test_a_figure_of_absurd_size_is_drawn_smaller(worker):
    cell = worker.run("plt.figure(figsize=(300, 300))\nplt.plot([1, 2])\nplt.title('T');", timeout=90)
    assert cell.status == "ok"
    assert cell.pictures[0]["data"] or cell.pictures[0]["path"], cell.notices


def test_an_animation_shows_its_last_frame(shared):
    cell = shared.run(
        "from matplotlib.animation import FuncAnimation\nfig, ax = plt.subplots()\nline, = ax.plot([], [])\n"
        "ax.set(xlim=(0, 100), ylim=(-1, 1))\nseen = []\ndef step(i):\n    seen.append(i)\n"
        "    line.set_data(np.arange(i), np.sin(np.arange(i) / 9))\n    return line,\n"
        "ani = FuncAnimation(fig, step, frames=60)"
    )
    assert len(cell.pictures) == 1
    assert cell.err == ""
    assert shared.run("seen[-1], len(line.get_xdata())").result == "(59, 59)"
    assert shared.run("del ani").err == ""


def test_an_animation_that_blits_shows_its_last_frame(shared):
    cell = shared.run(
        "from matplotlib.animation import FuncAnimation\nfig, ax = plt.subplots()\n"
        "sc = ax.scatter([1], [1])\nseen = []\ndef step(i):\n    seen.append(i)\n    return [sc]\n"
        "ani = FuncAnimation(fig, step, save_count=40, blit=True)"
    )
    assert len(cell.pictures) == 1
    assert shared.run("seen[-1]").result == "39"
    assert shared.run("count = len(seen)\nfig").pictures
    assert shared.run("len(seen) - count").result == "0"


def test_pause_does_not_send_a_picture_a_turn(shared):
    cell = shared.run("for i in range(3):\n    plt.plot([i, 1])\n    plt.pause(0.001)")
    assert len(cell.pictures) == 1


def test_other_backends_are_ignored(worker):
    cell = worker.run(
        "import matplotlib\nmatplotlib.use('Agg')\nplt.plot([1, 2])\nplt.show()\nplt.plot([2, 1])\nplt.show()"
    )
    assert len(cell.pictures) == 2
    assert cell.err == ""
    cell = worker.run("matplotlib.use('TkAgg')\nplt.switch_backend('svg')\nplt.plot([3, 2])\nplt.show()")
    assert len(cell.pictures) == 1
    assert "no screen" in cell.err
    assert worker.run("%matplotlib qt\nplt.plot([1]);").pictures


def test_savefig_writes_every_format(worker):
    worker.run("plt.plot([1, 2])\nfor k in ('svg', 'pdf', 'png', 'jpg', 'eps'):\n    plt.savefig(f'a.{k}')")
    assert all((worker.folder / f"a.{kind}").stat().st_size > 500 for kind in ("svg", "pdf", "png", "jpg", "eps"))


def test_existing_files_are_not_overwritten(worker):
    (worker.folder / "plots").mkdir()
    (worker.folder / "plots" / "1.png").write_text("mine")
    os.symlink("/nowhere", worker.folder / "plots" / "2.png")
    assert worker.run("plt.plot([1]);").pictures[0]["path"] == "plots/3.png"
    assert (worker.folder / "plots" / "1.png").read_text() == "mine"


def test_without_a_place_for_files_the_picture_still_comes(worker):
    (worker.folder / "plots").write_text("in the way")
    cell = worker.run("plt.plot([1]);")
    assert cell.pictures[0]["data"]
    assert cell.pictures[0]["path"] is None
    assert "could not be kept" in cell.notices


def test_a_full_disk_leaves_no_half_file(worker):
    worker.run("import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)")
    cell = worker.run("resource.setrlimit(resource.RLIMIT_FSIZE, (2000, -1))\nplt.imshow(np.random.rand(50, 50));")
    assert cell.pictures[0]["data"]
    assert "could not be kept" in cell.notices
    assert list((worker.folder / "plots").iterdir()) == []


def test_captured_figures_go_to_the_capture(shared):
    cell = shared.run("%%capture caught\nplt.plot([1, 2])\nplt.show()")
    assert cell.displays == []
    assert shared.run("'image/png' in caught.outputs[0].data").result == "True"


def test_warnings_turned_into_errors_do_not_stop_the_drawing(shared):
    cell = shared.run("import warnings\nwarnings.simplefilter('error')\nplt.title('\\u4e2d\\u6587')\nplt.plot([1]);")
    assert len(cell.pictures) == 1, cell.notices
    shared.run("warnings.resetwarnings()")


def test_a_forked_child_sends_nothing(shared):
    cell = shared.run(
        "import os\npid = os.fork()\nif pid == 0:\n    plt.plot([1])\n    display('from the child')\nelse:\n"
        "    os.waitpid(pid, 0)"
    )
    assert cell.displays == []
    assert "from the child" in cell.out
