"""Values are shown in all their forms, bounded, whatever they do."""

import base64
import io

import pytest
from PIL import Image
from python_fixtures import *  # noqa: F403  fixtures


def test_a_data_frame_comes_as_text_html_and_markdown(shared):
    data = shared.run("pd.DataFrame({'a': [1, 2.5], 'b|c': ['x', 'y\\nz']})").displays[0]["data"]
    assert data["text/plain"].split() == ["a", "b|c", "0", "1.0", "x", "1", "2.5", "y\\nz"]
    assert "<table" in data["text/html"]
    assert data["text/markdown"].splitlines() == [
        "|  | a | b\\|c |",
        "|---|---|---|",
        "| 0 | 1 | x |",
        "| 1 | 2.5 | y z |",
    ]


def test_a_large_data_frame_is_shown_from_both_ends(shared):
    data = shared.run("pd.DataFrame(np.arange(3_000_000).reshape(-1, 30))").displays[0]["data"]
    assert len(data["text/markdown"].splitlines()) == 23
    assert "99999" in data["text/markdown"]
    assert len(data["text/html"]) < 100_000


@pytest.mark.parametrize(
    ("method", "value", "mime"),
    [
        ("_repr_html_", "'<b>x</b>'", "text/html"),
        ("_repr_svg_", "'<svg/>'", "image/svg+xml"),
        ("_repr_latex_", "'$x$'", "text/latex"),
        ("_repr_markdown_", "'# x'", "text/markdown"),
        ("_repr_json_", "{'a': [1, None]}", "application/json"),
        ("_repr_mimebundle_", "{'text/html': '<b>x</b>', 'text/plain': 'x'}", "text/html"),
    ],
)
def test_repr_methods_are_honoured(shared, method, value, mime):
    cell = shared.run(f"class R:\n    def {method}(self, **kw):\n        return {value}\nR()")
    data = cell.displays[0]["data"]
    wanted = eval(value)
    assert data[mime] == (wanted[mime] if method == "_repr_mimebundle_" else wanted)
    assert "text/plain" in data


def test_display_shows_several_values_in_order(shared):
    cell = shared.run("display(1, 'two')\ndisplay({'three': 3})\n4")
    assert cell.texts == ["1", "'two'", "{'three': 3}", "4"]
    assert [d["is_result"] for d in cell.displays] == [False, False, False, True]


def test_ipythons_display_objects_have_words(shared):
    cell = shared.run(
        "from IPython.display import HTML, Latex, Markdown, JSON, SVG\n"
        "display(HTML('<h1>Big &amp; bold</h1><script>no()</script>'), Latex('$a$'), Markdown('# b'),"
        " JSON({'a': float('nan'), 1: (2,)}), SVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>'))"
    )
    assert cell.texts[:4] == ["Big & bold", "$a$", "# b", '{"a": null, "1": [2]}']
    assert "<svg" in cell.displays[4]["data"]["image/svg+xml"]


def test_of_updates_the_last_one_is_shown(shared):
    cell = shared.run("h = display('start', display_id=True)\nfor i in range(50):\n    h.update(i)\nprint('end')")
    assert cell.texts == ["'start'", "49"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise ValueError('bad')", "repr failed: ValueError: bad"),
        ("return repr(self)", "repr failed: RecursionError"),
        ("return 5", "repr failed: TypeError"),
    ],
)
def test_a_repr_that_fails_gives_a_sentence(shared, body, words):
    cell = shared.run(f"class Bad:\n    def __repr__(self):\n        {body}\nBad()")
    assert cell.status == "ok"
    assert words in cell.result
    assert len(cell.result) < 500


def test_a_repr_that_prints_or_exits_does_no_harm(shared):
    cell = shared.run("class P:\n    def __repr__(self):\n        print('side')\n        return 'P'\nP()")
    assert (cell.out, cell.result) == ("side\n", "P")
    assert shared.run("class Q:\n    def __repr__(self):\n        raise SystemExit(4)\nQ()").status == "error"
    assert shared.run("1").result == "1"


def test_a_repr_of_100_mb_is_cut_and_says_so(shared):
    cell = shared.run("'x' * 100_000_000")
    assert len(cell.result) < 110_000
    assert "100000002 characters" in cell.notices


def test_forms_that_are_too_large_are_left_out_with_a_notice(shared):
    cell = shared.run("from IPython.display import HTML\nHTML('<p>' + 'x' * 5_000_000)")
    assert "text/html" not in cell.displays[0]["data"]
    assert "text/html of 5000003 characters" in cell.notices


def test_a_bundle_over_the_frame_limit_is_reduced_to_its_text(shared):
    code = "display({f'text/x{i}': 'ä' * 1_500_000 for i in range(4)} | {'text/plain': 'short'}, raw=True)"
    cell = shared.run(code)
    assert cell.displays[0]["data"] == {"text/plain": "short"}
    assert "too large" in cell.notices


def test_half_characters_are_escaped(shared):
    assert shared.run(r"print('\ud800'); '\ud800'").result == r"'\ud800'"
    assert shared.run(r"from IPython.display import JSON; JSON({'\ud800': '\ud800'})").status == "ok"


def test_a_pillow_image_comes_as_picture_and_file(worker):
    cell = worker.run("from PIL import Image\nImage.new('RGB', (64, 48), 'red')")
    picture = cell.pictures[0]
    assert (picture["width"], picture["height"], picture["path"]) == (64, 48, "plots/1.png")
    assert Image.open(io.BytesIO(base64.b64decode(picture["data"]))).convert("RGB").getpixel((5, 5)) == (255, 0, 0)
    assert Image.open(worker.folder / "plots" / "1.png").size == (64, 48)
    assert cell.displays[0]["is_result"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "I", "F", "I;16", "YCbCr", "HSV", "LAB"])
def test_images_of_every_mode_are_shown(shared, mode):
    cell = shared.run(f"from PIL import Image\nimage = Image.new({mode!r}, (40, 30))\ndisplay(image)")
    assert cell.status == "ok"
    assert cell.pictures[0]["data"], cell.notices


def test_bytes_of_a_picture_keep_their_own_file(worker):
    worker.run(
        "from PIL import Image as P\nfrom IPython.display import Image\nb = io.BytesIO()\n"
        "P.new('RGB', (50, 40), 'blue').save(b, 'JPEG')"
    )
    cell = worker.run("Image(b.getvalue())")
    assert cell.pictures[0]["path"] == "plots/1.jpg"
    assert (worker.folder / "plots" / "1.jpg").read_bytes().startswith(b"\xff\xd8")
    assert "could not be shown" in worker.run("Image(b'no picture', format='png')").notices


def test_a_decompression_bomb_is_a_notice(worker):
    code = (
        "import zlib, struct\nfrom IPython.display import Image\n"
        "def chunk(kind, data):\n"
        "    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))\n"
        "head = chunk(b'IHDR', struct.pack('>IIBBBBB', 60000, 60000, 8, 2, 0, 0, 0))\n"
        "Image(b'\\x89PNG\\r\\n\\x1a\\n' + head + chunk(b'IDAT', zlib.compress(b'')) +"
        " chunk(b'IEND', b''), format='png')"
    )
    cell = worker.run(code)
    assert cell.status == "ok"
    assert "could not be shown" in cell.notices


def test_formatters_of_the_user_are_used(worker):
    worker.run("get_ipython().display_formatter.formatters['text/html'].for_type(int, lambda n: f'<i>{n}</i>')")
    assert worker.run("5").displays[0]["data"]["text/html"] == "<i>5</i>"


def test_a_large_data_frame_is_digested(shared):
    text = shared.run("pd.DataFrame({'n': range(5000), 'word': 'abc', 'x': 0.5})").result
    lines = text.splitlines()
    assert lines[:2] == ["DataFrame of 5,000 rows x 3 columns", "columns: n int64, word str, x float64"]
    assert [line.split()[0] for line in lines[3:]] == ["0", "1", "2", "3", "4", "…", "4997", "4998", "4999"]


def test_a_wide_data_frame_says_what_it_leaves_out(shared):
    text = shared.run("pd.DataFrame(np.arange(3_000_000).reshape(-1, 300)).add_prefix('column_')").result
    assert text.startswith("DataFrame of 10,000 rows x 300 columns\ncolumns: column_0 int64, ")
    assert ", … 260 more\n" in text and text.endswith("of 300 columns)")
    assert len(text) < 4_000 and max(len(line) for line in text.splitlines()[2:]) <= 170


def test_a_data_frame_of_enormous_cells_is_bounded(shared):
    text = shared.run("pd.DataFrame({f'{i}' * 500: ['x' * 100_000] * 100 for i in range(9)})").result
    assert len(text) < 4_000


@pytest.mark.parametrize("rows", [0, 1, 8, 9, 10, 60, 61])
def test_no_row_of_a_small_table_is_lost(shared, rows):
    text = shared.run(f"pd.DataFrame({{'row': np.arange({rows}) + 10_000}})").result
    assert sum("100" in line for line in text.splitlines()) == (rows if rows <= 60 else 8)


def test_tables_inside_of_lists_and_broken_subclasses_are_shown(shared):
    assert shared.run("[pd.DataFrame({'a': [1]})]").result == "[   a\n 0  1]"
    cell = shared.run("class F(pd.DataFrame):\n    shape = property(lambda s: 1 / 0)\nF({'a': range(100)})")
    assert cell.status == "ok" and cell.result


def test_who_sets_pandas_options_gets_what_they_say(worker):
    cell = worker.run("pd.set_option('display.max_rows', None)\npd.DataFrame({'a': range(500)})")
    assert len(cell.result.splitlines()) == 501


def test_long_containers_say_how_long_they_are(shared):
    assert shared.run("list(range(1000))").result.endswith("...]\n(list of 1,000 items, the first 200 are shown)")
    assert shared.run("list(range(200))").result.endswith(" 199]")
    assert "dict of 5,000 items" in shared.run("{i: i for i in range(5000)}").result


def test_an_object_with_a_form_but_no_words_gets_some(shared):
    cell = shared.run(
        "class R:\n    def _repr_html_(self):\n"
        "        return '<style>p{}</style><table><tr><th>a</th><td>1&lt;2</td></tr><tr><td>b</td></tr></table>'\nR()"
    )
    assert cell.result == "a 1<2\nb"


@pytest.mark.parametrize("form", ["image", "file"])
def test_pictures_that_differ_in_their_colours_alone_are_two(worker, form):
    cell = worker.run(
        "import io\nfrom PIL import Image as Pictures\nfrom IPython.display import Image\n"
        "def show(colours, **options):\n"
        "    picture = Pictures.new('P', (8, 8), 1)\n    picture.putpalette(colours)\n"
        "    picture.info.update(options)\n"
        f"    if {form!r} == 'image':\n        display(picture)\n        return\n"
        "    file = io.BytesIO()\n    picture.save(file, 'PNG', **options)\n    display(Image(file.getvalue()))\n"
        "show([0, 0, 0, 255, 0, 0])\nshow([0, 0, 0, 0, 0, 255])\nshow([0, 0, 0, 255, 0, 0], transparency=1)\n"
        "show([0, 0, 0, 255, 0, 0])\nshow([0, 0, 0, 255, 0, 0], transparency=1)"
    )
    assert [picture["path"] for picture in cell.pictures] == ["plots/1.png", "plots/2.png", "plots/3.png"]
    assert ["(the same picture as plots/" in text for text in cell.texts] == [False] * 3 + [True] * 2
    shown = [Image.open(io.BytesIO(base64.b64decode(picture["data"]))) for picture in cell.pictures]
    assert [each.convert("RGB").getpixel((0, 0)) for each in shown[:2]] == [(255, 0, 0), (0, 0, 255)]


def test_an_svg_is_kept_as_a_file_once(worker):
    cell = worker.run(
        'from IPython.display import SVG\nsvg = \'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30">'
        "<title>A &amp; B</title></svg>'\ndisplay(SVG(svg))\nSVG(svg)"
    )
    assert cell.texts == [
        "SVG picture 40 x 30 “A & B” (in plots/1.svg)",
        "SVG picture 40 x 30 “A & B” (the same picture as plots/1.svg)",
    ]
    assert (worker.folder / "plots" / "1.svg").read_text().startswith("<svg")
    assert cell.displays[0]["data"]["image/svg+xml"].startswith("<svg")


def test_interactive_figures_are_told_in_words(shared):
    cell = shared.run(
        "class P:\n    def __repr__(self): return 'Figure({' + 'x' * 50_000\n"
        "    def _ipython_display_(self): raise ValueError('requires nbformat')\n"
        "    def _repr_mimebundle_(self, **kw):\n"
        "        layout = {'title': {'text': 'Sales <b>2024</b>'}, 'xaxis': {'title': {'text': 'month'}}}\n"
        "        data = [{'type': 'bar', 'name': 'north'}, {'type': 'bar'}, {}]\n"
        "        return {'application/vnd.plotly.v1+json': {'data': data, 'layout': layout}, 'text/html': '<p>'}\nP()"
    )
    assert cell.result == "Interactive plotly figure “Sales 2024”: 2 bar, 1 scatter, named north, x: month"
    assert set(cell.displays[0]["data"]) == {"application/vnd.plotly.v1+json", "text/html", "text/plain"}
    assert cell.notices == ""
    cell = shared.run(
        "class Chart:\n    def to_dict(self):\n"
        "        return {'$schema': 'x/schema/vega-lite/v6.1.0.json', 'title': 'Hi', 'mark': {'type': 'bar'},"
        " 'encoding': {'x': {'field': 'a'}, 'y': {'aggregate': 'count'}}}\nChart.__module__ = 'altair.api'\nChart()"
    )
    assert cell.result == "Interactive Vega chart “Hi”: bar (x: a, y: count)"
    assert "application/vnd.vegalite.v6+json" in cell.displays[0]["data"]


@pytest.mark.parametrize("chart", ["{}", "{'data': 5, 'layout': [1]}", "{'data': [None], 'layout': {'title': 3}}"])
def test_figures_that_are_none_are_told_all_the_same(shared, chart):
    cell = shared.run(f"display({{'application/vnd.plotly.v1+json': {chart}, 'text/plain': 'x'}}, raw=True)")
    assert cell.status == "ok" and cell.texts[0].startswith("Interactive plotly figure")


# The seams of plotly 6 and Altair 6 that matter here, and no more; the packages themselves are 150 MB.
PLOTLY = {
    "__init__.py": "",
    "io.py": (
        "def show(fig, renderer=None):\n    raise ValueError('Mime type rendering requires nbformat>=4.2.0')\n"
        "def write_image(fig, path):\n    raise ValueError('Image export requires the Kaleido package')\n"
    ),
    "basedatatypes.py": (
        "import json\nclass BaseFigure:\n"
        "    def __init__(self, kind='bar'): self.kind = kind\n"
        "    def to_plotly_json(self): return {'data': [{'type': self.kind}], 'layout': {}}\n"
        "    def to_json(self): return json.dumps(self.to_plotly_json())\n"
        "    def to_html(self, **how): return '<div>' + str(how['full_html']) + '</div><script>1</script>'\n"
        "    def show(self, *a, **k):\n        import plotly.io as pio\n        return pio.show(self, *a, **k)\n"
        "    def write_image(self, path):\n        import plotly.io as pio\n        pio.write_image(self, path)\n"
        "    def _ipython_display_(self): self.show()\n"
    ),
    "graph_objects.py": "from plotly.basedatatypes import BaseFigure\nclass Figure(BaseFigure): pass\n",
}
ALTAIR = {
    "__init__.py": "",
    "vegalite/__init__.py": "",
    "vegalite/v6/__init__.py": "",
    "vegalite/v6/api.py": (
        "from PIL import Image\nclass TopLevelMixin:\n"
        "    def to_dict(self): return {'$schema': 'x/schema/vega-lite/v6.1.0.json', 'title': 'Hi', 'mark': 'bar'}\n"
        "    def _repr_mimebundle_(self, **kw): return {'text/html': '<div>vega</div><script>1</script>'}\n"
        "    def save(self, target, format, scale_factor):\n"
        "        Image.new('RGB', (120 * scale_factor, 80), 'green').save(target, format)\n"
        "class Chart(TopLevelMixin): pass\n"
        "class Huge(TopLevelMixin):\n    def to_dict(self): raise ValueError('too many rows\\nread this and that')\n"
    ),
}


def write_package(folder, name, files):
    for path, text in files.items():
        target = folder / name / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def test_a_plotly_figure_is_shown_once_however_it_is_asked_to_show_itself(worker):
    write_package(worker.folder, "plotly", PLOTLY)
    worker.run("import sys\nsys.path.insert(0, '')")
    cell = worker.run("import plotly.graph_objects as go\nfig = go.Figure()\nfig.show()")
    assert (cell.status, cell.err) == ("ok", "")
    assert cell.texts == ["Interactive plotly figure: 1 bar"]
    assert cell.displays[0]["data"]["text/html"] == "<div>False</div><script>1</script>"
    assert "Draw with matplotlib" in cell.notices
    for code in ("display(fig)", "fig", "fig.show(renderer='notebook')", "fig.show('browser')"):
        cell = worker.run(code)
        assert (cell.status, cell.err, len(cell.displays)) == ("ok", "", 1), code
        assert cell.displays[0]["data"]["application/vnd.plotly.v1+json"] == {"data": [{"type": "bar"}], "layout": {}}
        assert cell.displays[0]["is_result"] == (code == "fig")
        assert cell.notices == ""


def test_a_plotly_figure_that_shall_be_a_picture_says_why_it_is_none(worker):
    write_package(worker.folder, "plotly", PLOTLY)
    worker.run("import sys\nsys.path.insert(0, '')\nimport plotly.graph_objects as go\nfig = go.Figure()")
    worker.run("fig")
    cell = worker.run("fig.show('png')")
    assert cell.texts == ["Interactive plotly figure: 1 bar"] and "needs a browser" in cell.notices
    cell = worker.run("fig.write_image('x.png')")
    assert cell.status == "error" and "with kaleido or without" in cell.notices


def test_an_altair_chart_is_a_picture_where_its_converter_is_installed(worker):
    write_package(worker.folder, "altair", ALTAIR)
    worker.run("import sys\nsys.path.insert(0, '')\nimport altair.vegalite.v6.api as alt\nchart = alt.Chart()")
    cell = worker.run("display(chart)")
    assert cell.texts == ["Interactive Vega chart “Hi”: bar"] and cell.pictures == []
    assert set(cell.displays[0]["data"]) == {"application/vnd.vegalite.v6+json", "text/html", "text/plain"}
    write_package(worker.folder, "vl_convert", {"__init__.py": ""})
    cell = worker.run("chart")
    assert cell.pictures[0]["data"] and cell.pictures[0]["path"] == "plots/1.png"
    assert Image.open(worker.folder / "plots" / "1.png").size == (240, 80)
    cell = worker.run("%%capture caught\nchart")
    assert cell.displays == [] and "Interactive" in worker.run("caught.outputs[0].data['text/plain']").result
    cell = worker.run("alt.Huge()")
    assert cell.pictures[0]["data"] and cell.err == ""
    assert cell.notices == "The Huge cannot be shown to the user as it is: ValueError: too many rows"
