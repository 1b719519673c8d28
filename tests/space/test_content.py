"""What the model reads of a result."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import pytest

from executor.results import ErrorInfo, ExecutionResult, FileInfo, HistoryEntry, Output, Picture, Variable, Violation
from space.content import clean, execution_answer, history_data, refusal, structured_result


def result(**fields: Any) -> ExecutionResult:
    base = ExecutionResult(
        status="ok", session_id="s1", execution_id="e1", language="python", return_code=0, execution_time=0.01
    )
    return replace(base, **fields)


def picture(chars: int, number: int = 1, **fields: Any) -> Output:
    made = Picture(mime="image/png", data="A" * chars, width=640, height=480, path=f"plots/{number}.png")
    return Output(data={"text/plain": "<Figure size 640x480 with 1 Axes>"}, picture=replace(made, **fields))


def text(answered: ExecutionResult, **options: Any) -> str:
    return execution_answer(answered, budget=140_000, **options).texts[0]


def test_a_printed_sum_is_the_sum_and_the_session() -> None:
    assert text(result(stdout="2\n")) == "2\nsession_id: s1"


def test_code_that_says_nothing_is_said_to_say_nothing() -> None:
    assert text(result()) == "(no output)\nsession_id: s1"


def test_output_last_value_and_files_are_in_words() -> None:
    shown = text(
        result(
            stdout="hello\n",
            outputs=(Output(data={"text/plain": "42", "text/html": "<b>42</b>"}, is_result=True),),
            files=(FileInfo("out.csv", 1234, 0.0, "new"),),
            notices=("The output was cut.",),
        )
    )
    assert shown == "hello\n42\nFiles: out.csv (1,234 bytes, new)\nNote: The output was cut.\nsession_id: s1"


def test_an_error_comes_first_and_says_its_line() -> None:
    answered = execution_answer(
        result(
            status="error",
            stdout="before\n",
            error=ErrorInfo("ZeroDivisionError", "division by zero", 2, "Cell, line 2\n----> 2 1/0"),
        ),
        budget=140_000,
    )
    assert answered.is_error
    assert answered.texts[0].startswith("Error: ZeroDivisionError: division by zero (line 2)\nbefore\nCell, line 2")


def test_a_timeout_is_named_as_one_with_the_line_it_met() -> None:
    stopped = result(status="timeout", execution_time=30.04, error=ErrorInfo("KeyboardInterrupt", "", 3))
    assert text(stopped).startswith("Error: the time limit stopped the code after 30.0 s (line 3)\n")


def test_what_plotting_returns_is_not_worth_a_line() -> None:
    outputs = (
        Output(data={"text/plain": "Text(0.5, 1.0, 'Sales')"}, is_result=True),
        Output(data={"text/plain": "[<matplotlib.lines.Line2D at 0x7f>]"}),
        picture(10),
    )
    assert text(result(outputs=outputs)) == "Picture 1: plots/1.png, 640x480\nsession_id: s1"


@pytest.mark.parametrize("status", ["error", "timeout", "interrupted", "blocked", "memory", "disk", "crashed", "lost"])
def test_every_failure_is_an_error_that_says_so(status: Any) -> None:
    answered = execution_answer(result(status=status, return_code=3), budget=140_000)
    assert answered.is_error and answered.texts[0].startswith("Error: ")


def test_a_refused_code_names_the_rule_in_words() -> None:
    assert text(result(status="blocked", violations=(Violation("rm", "rm is not allowed here.", 1, 1),))).startswith(
        "Error: rm is not allowed here."
    )


def test_pictures_go_out_with_a_line_each() -> None:
    answered = execution_answer(result(outputs=(picture(100, alt="Sales"), picture(100, 2))), budget=140_000)
    assert len(answered.pictures) == 2
    assert "Picture 1: plots/1.png, 640x480, Sales\nPicture 2: plots/2.png, 640x480" in answered.texts[0]
    assert "Figure size" not in answered.texts[0]


@pytest.mark.parametrize("budget", [2_000, 20_000, 140_000])
@pytest.mark.parametrize("printed", [0, 500, 60_000, 2_000_000])
def test_text_and_base64_stay_within_the_budget(budget: int, printed: int) -> None:
    many = tuple(picture(50_000 + number, number, alt="ü" * 400) for number in range(60))
    answered = execution_answer(
        result(stdout="ж" * printed, outputs=many, notices=("n" * 5_000,) * 30, status="error"), budget=budget
    )
    assert sum(map(len, answered.texts)) + sum(len(p.data) for p in answered.pictures) <= budget
    assert answered.texts[0].endswith("session_id: s1")


def test_a_picture_that_does_not_fit_is_named_with_its_file() -> None:
    answered = execution_answer(result(outputs=(picture(90_000), picture(90_000, 2))), budget=140_000)
    assert len(answered.pictures) == 1
    assert "Picture 2: plots/2.png, 640x480 (not attached" in answered.texts[0]


def test_what_is_no_picture_is_never_sent_as_one() -> None:
    bad = (picture(10, mime="text/html"), picture(10, 2, data='"}], evil'))
    answered = execution_answer(result(outputs=bad), budget=140_000)
    assert answered.pictures == () and answered.texts[0].count("not attached") == 2


def test_long_output_keeps_head_and_tail() -> None:
    shown = execution_answer(result(stdout="start" + "x" * 10_000 + "end"), budget=3_000).texts[0]
    assert shown.startswith("start") and "characters cut" in shown and "end\nsession_id" in shown


def test_structured_data_has_the_recipes_keys_and_no_base64() -> None:
    data = structured_result(result(stdout="2\n", outputs=(picture(40),)))
    assert {"success", "stdout", "stderr", "execution_time", "return_code", "session_id", "plot"} <= data.keys()
    assert data["plot"] is None
    assert data["outputs"][0]["picture"] == {
        "path": "plots/1.png",
        "type": "image/png",
        "size": 30,
        "width": 640,
        "height": 480,
        "alt": "",
    }
    assert "A" * 40 not in json.dumps(data)


def test_rich_values_are_told_in_words() -> None:
    display = "<IPython.core.display.HTML object>"
    outputs = (
        Output(data={"text/plain": display, "text/html": "<b>hi</b>"}),
        Output(data={"text/plain": display, "text/markdown": "# hi"}),
        Output(data={"application/json": {"a": 1}}),
        Output(data={"image/svg+xml": "<svg/>"}),
    )
    assert text(result(outputs=outputs)) == '<b>hi</b>\n# hi\n{"a": 1}\n(image/svg+xml, 6 characters)\nsession_id: s1'


def test_half_characters_and_deep_nesting_cannot_break_the_connection() -> None:
    nested: Any = 1
    for _ in range(500):
        nested = [nested]
    data = structured_result(result(stdout="\ud800", outputs=(Output(data={"application/json": nested}),)))
    assert json.dumps(data, ensure_ascii=False).encode()
    assert "nested too deeply" in json.dumps(data)
    assert clean({"\ud800": "\udfff"}) == {"?": "?"}


def test_history_keeps_the_newest_that_fit() -> None:
    entries = [
        HistoryEntry(code=f"n = {n}", language="python", result=result(stdout="x" * 500), timestamp=float(n))
        for n in range(100)
    ]
    kept, omitted = history_data(entries, budget=10_000)
    assert kept[-1]["code"] == "n = 99" and len(kept) + omitted == 100 and omitted > 0
    assert len(json.dumps(kept)) <= 10_000


def test_history_says_of_which_code_it_has_the_beginning_only() -> None:
    entry = HistoryEntry(code="x" * 20_000, language="bash", result=result(), timestamp=0.0, whole_chars=30_000)
    (kept,), _ = history_data([entry], budget=100_000)
    assert kept["code"] == f"{entry.code}\n... Only the first 20,000 of 30,000 characters of this code were kept."


def test_a_refusal_begins_with_error() -> None:
    answered = refusal("session_id is needed here.")
    assert answered.texts == ("Error: session_id is needed here.",) and answered.is_error


def test_a_hint_follows_its_error_and_is_not_said_twice() -> None:
    no_network = "There is no network in this session."
    error = ErrorInfo("OSError", "unreachable", 2, "OSError: unreachable", no_network)
    shown = text(result(status="error", error=error, notices=(no_network, "Something else.")))
    assert shown == (f"Error: OSError: unreachable (line 2)\nHint: {no_network}\nNote: Something else.\nsession_id: s1")
    assert structured_result(result(error=error))["error"]["hint"] == no_network


def test_variables_are_one_bounded_line() -> None:
    variables = (Variable("df", "DataFrame", "1000x3", "new"), Variable("x", "int", "= 41", "changed"))
    shown = text(result(variables=(*variables, Variable("model", "LinearRegression", "", "new"))))
    assert shown == (
        "(no output)\nVariables: df: DataFrame 1000x3; x: int = 41; model: LinearRegression\nsession_id: s1"
    )
    data = structured_result(result(variables=variables))["variables"]
    assert data[1] == {"name": "x", "type": "int", "summary": "= 41", "change": "changed"}
    many = text(result(variables=tuple(Variable(f"name_{n}", "str", "= 'abcdef'", "new") for n in range(50))))
    line = many.splitlines()[1]
    assert len(line) < 650 and line.endswith("more") and "\n" not in line


def test_progress_bars_are_told_by_their_last_state_and_colours_not_at_all() -> None:
    bar = "\r".join(f"{n}%|{'#' * (n // 10)}" for n in range(0, 101, 10))
    stderr = f"\r{bar}\r\n\x1b[31mred\x1b[0m \x1b]0;title\x07done\x1b[K\nwindows\r\nb\x08bold\x00"
    answered = execution_answer(result(stderr=stderr), budget=140_000)
    assert answered.texts[0] == "stderr:\n100%|##########\nred done\nwindows\nbold\nsession_id: s1"
    assert answered.structured is not None and answered.structured["stderr"] == stderr


@pytest.mark.parametrize(
    "printed", ["\x1b" * 100_000, "\r" * 100_000, "\x1b]" * 50_000, "\x08" * 100_000, "\x1b[1" * 40_000]
)
def test_no_printed_text_takes_long_to_clean(printed: str) -> None:
    began = time.monotonic()
    text(result(stdout=printed))
    assert time.monotonic() - began < 5


def test_a_long_value_is_shown_by_its_ends() -> None:
    shown = text(result(outputs=(Output(data={"text/plain": "start" + "x" * 90_000 + "end"}, is_result=True),)))
    assert len(shown) < 10_100 and shown.startswith("start") and "characters cut" in shown and "xend\n" in shown


def test_a_picture_that_the_sandbox_left_out_is_said_to_have_had_no_room() -> None:
    assert "plots/1.png, 640x480 (not attached: no room left in this answer)" in text(result(outputs=(picture(0),)))


PLOTLY = {"text/plain": "Interactive plotly figure: 1 bar", "application/vnd.plotly.v1+json": {}, "text/html": "<p>fig"}
TABLE = {"text/plain": "a\n1", "text/html": "<table><tr><td>1"}
SCRIPT = {"text/plain": "a map", "text/html": "<div></div><SCRIPT>draw()</SCRIPT>"}


@pytest.mark.parametrize(("ui", "number"), [("off", 0), ("figures", 2), ("all", 3)])
def test_interactive_things_go_out_as_views_beside_words(ui: Any, number: int) -> None:
    shown = execution_answer(
        result(outputs=tuple(Output(data=d) for d in (PLOTLY, TABLE, SCRIPT))), budget=9_000, ui=ui
    )
    assert len(shown.views) == number
    assert [view.uri for view in shown.views] == [f"ui://code-interpreter/e1/{n + 1}" for n in range(number)]
    assert "Interactive plotly figure: 1 bar\na\n1\na map" in shown.texts[0]
    assert ("Attached for the person" in shown.texts[0]) == bool(number)
    assert "<" not in shown.texts[0]


@pytest.mark.parametrize("budget", [2_000, 20_000, 140_000])
def test_views_stay_within_the_budget_and_say_what_is_missing(budget: int) -> None:
    html = Output(data={"text/plain": "a figure", "text/html": "<script>" + "x" * 30_000})
    shown = execution_answer(
        result(outputs=(*[html] * 20, picture(40_000)), stdout="y" * 50_000), budget=budget, ui="figures"
    )
    spent = (
        sum(map(len, shown.texts)) + sum(len(p.data) for p in shown.pictures) + sum(len(v.html) for v in shown.views)
    )
    assert spent <= budget
    assert "had no room in this answer" in shown.texts[0]
    assert shown.texts[0].endswith("session_id: s1")


@pytest.mark.parametrize(
    "notice",
    [
        "Session restored: df, model; lost: conn (open socket): run cell 3 again.",
        "This is a new session: the former one of this conversation has ended.",
    ],
)
def test_what_has_become_of_the_session_is_said_before_the_output(notice: str) -> None:
    assert text(result(stdout="hello\n", notices=("Cut.", notice))) == (
        f"Note: {notice}\nhello\nNote: Cut.\nsession_id: s1"
    )
    assert text(result(notices=(notice,))).startswith(f"Note: {notice}\n(no output)")
    error = ErrorInfo("NameError", "name 'conn' is not defined", 1)
    shown = text(result(status="error", error=error, notices=(notice,)))
    assert shown.startswith(f"Error: NameError: name 'conn' is not defined (line 1)\nNote: {notice}\n")
    assert shown.count(notice) == 1
