"""What a model reads of pictures, tables, errors and interactive figures, through a real client and a real session."""

from __future__ import annotations

import secrets

import pytest
from mcp.types import CallToolResult, EmbeddedResource, TextResourceContents

from tests.e2e.running import RunningSpace, client, data_of, identity, pictures_of, text_of

BUDGET = 140_000


@pytest.fixture
def me() -> dict[str, str]:
    """A user in a conversation that no other test knows."""
    return identity(f"user-{secrets.token_hex(6)}", f"conversation-{secrets.token_hex(6)}")


async def run(space: RunningSpace, me: dict[str, str], code: str, tool: str = "execute_python_code") -> CallToolResult:
    """The result of one call, which stays within the budget whatever it does."""
    argument = "command" if tool == "execute_bash_command" else "code"
    async with client(space, "http", me) as session:
        result = await session.call_tool(tool, {argument: code})
    assert len(text_of(result)) + sum(len(picture.data) for picture in pictures_of(result)) <= BUDGET
    return result


async def test_a_plot_of_4000_by_3000_pixels_is_scaled_and_kept(space: RunningSpace, me: dict[str, str]) -> None:
    code = (
        "plt.figure(figsize=(40, 30))\nplt.imshow(np.random.rand(300, 400))\n"
        "plt.title('Noise')\nplt.xlabel('column')\nplt.show()\n"
        "from PIL import Image\nprint(Image.open('plots/1.png').size)"
    )
    result = await run(space, me, code)
    assert len(pictures_of(result)) == 1
    assert "(4000, 3000)" in text_of(result)
    line = next(line for line in text_of(result).splitlines() if line.startswith("Picture 1: plots/1.png, "))
    assert "“Noise”" in line and "x: column" in line and "1 image" in line and "4000x3000" not in line


async def test_sixty_subplots_are_one_picture(space: RunningSpace, me: dict[str, str]) -> None:
    code = "fig, axes = plt.subplots(10, 6, figsize=(12, 20))\nfor a in axes.flat: a.plot(np.random.rand(9))"
    result = await run(space, me, code)
    assert len(pictures_of(result)) == 1
    assert "60 axes" in text_of(result)
    assert "Variables: fig: Figure; axes: ndarray 10x6 object" in text_of(result)


async def test_of_thirty_figures_each_is_named_and_what_is_not_shown_is_said(
    space: RunningSpace, me: dict[str, str]
) -> None:
    code = "for i in range(30):\n    plt.figure()\n    plt.plot(np.random.rand(50))\n    plt.title(f'figure {i}')"
    result = await run(space, me, code)
    lines = [line for line in text_of(result).splitlines() if line.startswith("Picture ")]
    assert [line.split(",")[0] for line in lines] == [f"Picture {n}: plots/{n}.png" for n in range(1, 31)]
    shown = len(pictures_of(result))
    assert shown >= 12
    assert sum("(not attached: no room left in this answer)" in line for line in lines) == 30 - shown


async def test_identical_figures_are_sent_once(space: RunningSpace, me: dict[str, str]) -> None:
    result = await run(space, me, "for _ in range(3):\n    plt.figure()\n    plt.plot([1, 2])")
    assert len(pictures_of(result)) == 1
    assert text_of(result).count("the same picture as plots/1.png") == 2


async def test_an_animation_is_its_last_frame(space: RunningSpace, me: dict[str, str]) -> None:
    code = (
        "from matplotlib.animation import FuncAnimation\nfig, ax = plt.subplots()\nline, = ax.plot([], [])\n"
        "ax.set(xlim=(0, 60), ylim=(-1, 1), title='Wave')\n"
        "def step(i):\n    line.set_data(np.arange(i), np.sin(np.arange(i)))\n    return line,\n"
        "ani = FuncAnimation(fig, step, frames=60)"
    )
    result = await run(space, me, code)
    assert len(pictures_of(result)) == 1 and "“Wave”" in text_of(result)
    assert "(59,)" in text_of(await run(space, me, "line.get_xdata().shape"))


async def test_a_figure_whose_drawing_raises_is_named_with_the_reason(space: RunningSpace, me: dict[str, str]) -> None:
    code = (
        "from matplotlib.text import Text\nclass Bad(Text):\n    def draw(self, renderer):\n"
        "        raise ValueError('cannot draw')\n"
        "plt.figure(); plt.gca().add_artist(Bad(0, 0, 'x'))\nplt.figure(); plt.plot([2, 1]);"
    )
    result = await run(space, me, code)
    assert len(pictures_of(result)) == 1
    assert "could not be drawn: ValueError: cannot draw" in text_of(result)


async def test_a_progress_bar_is_one_line_and_the_raw_text_is_kept(space: RunningSpace, me: dict[str, str]) -> None:
    code = "from tqdm import tqdm\nfor _ in tqdm(range(300), mininterval=0): pass\nprint('\\x1b[31mred\\x1b[0m')"
    result = await run(space, me, code)
    assert text_of(result).count("it/s") <= 2 and "300/300" in text_of(result)
    assert text_of(result).startswith("red\n")
    assert data_of(result)["stderr"].count("\r") > 100


async def test_a_large_table_is_a_digest(space: RunningSpace, me: dict[str, str]) -> None:
    code = "df = pd.DataFrame({f'c{n}': np.arange(100_000.0) for n in range(40)})\ndf"
    result = await run(space, me, code)
    assert text_of(result).startswith("DataFrame of 100,000 rows x 40 columns\ncolumns: c0 float64, c1 float64, ")
    assert len(text_of(result)) < 3_500
    assert "Variables: df: DataFrame 100000x40" in text_of(result)
    assert "<table" in data_of(result)["outputs"][0]["data"]["text/html"]


@pytest.mark.parametrize(
    ("tool", "code", "words"),
    [
        ("execute_python_code", "x = 1\nimport polarsx\ny = 2", 'Hint: install_packages(["polarsx"])'),
        ("execute_python_code", "open('sales.csv')", "Hint: The session's folder holds no files yet"),
        ("execute_python_code", "import socket\nraise socket.gaierror(-2, 'x')", "Hint: There is no network"),
        ("execute_python_code", "pd.DataFrame({'price': [1]})['Price']", "Hint: The columns are: price."),
        ("execute_javascript_code", "require('lodash')", 'Hint: install_packages(["lodash"], language="javascript")'),
        ("execute_bash_command", "nosuchprogram", "Note: Not installed here: nosuchprogram."),
    ],
)
async def test_an_error_of_known_cause_says_what_to_do(
    space: RunningSpace, me: dict[str, str], tool: str, code: str, words: str
) -> None:
    result = await run(space, me, code, tool)
    text = text_of(result)
    assert text.startswith("Error: ") and words in text
    assert text.count("There is no network") <= 1
    if words.startswith("Hint"):
        assert data_of(result)["error"]["hint"] in text


async def test_an_error_shows_the_cells_line_and_two_around_it(space: RunningSpace, me: dict[str, str]) -> None:
    text = text_of(await run(space, me, "a = 1\nb = 2\nc = 3\nd = a / 0\ne = 5\nf = 6\ng = 7"))
    assert text.startswith("Error: ZeroDivisionError: division by zero (line 4)\n")
    assert "    2 b = 2\n    3 c = 3\n  > 4 d = a / 0\n    5 e = 5\n    6 f = 6\n" in text
    assert "a = 1\n" not in text and "g = 7" not in text
    assert "Variables: a: int = 1; b: int = 2; c: int = 3" in text


async def test_a_time_limit_names_a_longer_one(space: RunningSpace, me: dict[str, str]) -> None:
    async with client(space, "http", me) as session:
        result = await session.call_tool("execute_python_code", {"code": "while True: pass", "timeout": 1})
    assert "at most 600 s" in text_of(result)


async def test_an_interactive_figure_is_words_and_a_view(space: RunningSpace, me: dict[str, str]) -> None:
    code = (
        "class F:\n    def _repr_mimebundle_(self, **kw):\n"
        "        return {'application/vnd.plotly.v1+json': {'data': [{'type': 'bar'}], 'layout': {}},"
        " 'text/html': '<div></div><script>1</script>'}\nF()"
    )
    result = await run(space, me, code)
    views = [block for block in result.content if isinstance(block, EmbeddedResource)]
    assert len(views) == 1 and isinstance(views[0].resource, TextResourceContents)
    assert str(views[0].resource.uri).startswith("ui://code-interpreter/")
    assert (views[0].resource.mimeType, views[0].resource.text) == ("text/html", "<div></div><script>1</script>")
    assert text_of(result).startswith("Interactive plotly figure: 1 bar\nAttached for the person: 1 interactive view.")
    assert data_of(result)["outputs"][0]["data"]["application/vnd.plotly.v1+json"]["data"] == [{"type": "bar"}]
