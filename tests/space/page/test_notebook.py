"""A session's history as a notebook."""

from __future__ import annotations

import json
import re
from typing import Any

from executor.results import ErrorInfo, ExecutionResult, HistoryEntry, Language, Output, Picture
from space.page.notebook import notebook, picture_paths


def entry(code: str, language: Language = "python", **fields: Any) -> HistoryEntry:
    values = {"status": "ok", "session_id": "s", "execution_id": "e", "language": language, **fields}
    return HistoryEntry(code=code, language=language, result=ExecutionResult(**values), timestamp=0.0)


ENTRIES = [
    entry("print(1)", stdout="1\n"),
    entry("plot()", outputs=(Output(picture=Picture("image/webp", "", 1, 1, "plots/1.png")),)),
    entry("1 + 1", outputs=(Output(data={"text/plain": "2"}, is_result=True),)),
    entry("1 / 0", status="error", error=ErrorInfo("ZeroDivisionError", "division by zero", 1, "line 1\nline 2")),
    entry("ls", "bash", stderr="\udcffbad\n", notices=("Cut.",)),
    entry("1", "javascript"),
]


def test_a_notebook_has_what_ran_and_what_it_said() -> None:
    made = json.loads(json.dumps(notebook(ENTRIES, {"plots/1.png": "AAAA"}), ensure_ascii=False).encode())
    assert (made["nbformat"], made["nbformat_minor"]) == (4, 5)
    cells = made["cells"]
    assert [cell["source"] for cell in cells] == [
        "print(1)", "plot()", "1 + 1", "1 / 0", "%%bash\nls", "%%script node\n1",
    ]  # fmt: skip
    assert cells[0]["outputs"] == [{"output_type": "stream", "name": "stdout", "text": "1\n"}]
    assert cells[1]["outputs"][0]["data"] == {"image/png": "AAAA"}
    assert cells[2]["outputs"][0]["output_type"] == "execute_result"
    assert cells[3]["outputs"][0]["ename"] == "ZeroDivisionError"
    assert [output["text"] for output in cells[4]["outputs"]] == ["?bad\n", "Cut.\n"]


def test_cells_and_outputs_have_just_the_keys_of_the_format() -> None:
    keys = {
        "stream": {"output_type", "name", "text"},
        "display_data": {"output_type", "data", "metadata"},
        "execute_result": {"output_type", "data", "metadata", "execution_count"},
        "error": {"output_type", "ename", "evalue", "traceback"},
    }
    cells = notebook(ENTRIES, {"plots/1.png": "AAAA"})["cells"]
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert set(cell) == {"cell_type", "id", "metadata", "execution_count", "source", "outputs"}
        assert re.fullmatch(r"[a-zA-Z0-9-_]{1,64}", cell["id"])
        for output in cell["outputs"]:
            assert set(output) == keys[output["output_type"]]


def test_pictures_that_are_gone_are_left_out() -> None:
    assert notebook(ENTRIES, {})["cells"][1]["outputs"] == []
    assert picture_paths(ENTRIES) == ["plots/1.png"]
