"""What is kept of a cell fits the frame that carries its report, whatever characters it is made of."""

import pytest

from executor.local import wire
from executor.local.cell import MAX_DISPLAY, Cell
from executor.local.stream import Stream
from executor.local.workspace import Workspace


@pytest.fixture
def cell(tmp_path):
    workspace = Workspace(str(tmp_path / "s"), max_bytes=10**9, max_files=1000)
    streams = {
        name: Stream(name, workspace, cap=1000, log=f"logs/{name}.txt", max_log=0) for name in ("stdout", "stderr")
    }
    return Cell(id="e1", language="python", code="", number=1, timeout=10, **streams)


def shown(data, picture=None):
    return {"data": data, "picture": picture, "is_result": False}


def report(cell):
    return cell.report(status="ok", return_code=0, error=None, files=[], refused=[])


@pytest.mark.parametrize("character", ["x", "ж", "😀", "\x01", '"', "\\"])
def test_the_report_of_many_displays_fits_a_frame(cell, character):
    for number in range(8):
        cell.display(shown({"text/html": f"{number}{character * 1_500_000}"}), limit=100)
        cell.display(shown({f"{number}/{character * 500_000}": {character * 200_000: [character * 9]}}), limit=100)
    assert cell.outputs_dropped
    assert len(wire.encode({"result": report(cell)})) < MAX_DISPLAY + 2000


def test_a_pictures_words_and_path_count_too(cell):
    picture = {"mime": "image/png", "data": "", "width": 1, "height": 1, "path": "p", "alt": ""}
    assert cell.display(shown({}, picture), limit=100)
    for name in ("data", "path", "alt"):
        assert not cell.display(shown({}, {**picture, name: "ж" * (MAX_DISPLAY // 6)}), limit=100)


def test_what_fits_to_the_byte_is_kept(cell):
    room = MAX_DISPLAY - len('{"data":{"a/b":""},"picture":null,"is_result":false}')
    assert not cell.display(shown({"a/b": "x" * (room + 1)}), limit=100)
    assert cell.display(shown({"a/b": "x" * room}), limit=100)


def test_values_that_nest_too_deep_are_told_of_once(cell):
    deep = []
    for _ in range(wire.MAX_DEPTH):
        deep = [deep]
    for _ in range(500):
        cell.display(shown({"text/plain": "t", "application/json": deep}), limit=100)
    assert report(cell)["outputs"][0]["data"] == {"text/plain": "t"}
    assert len(cell.notices) == 2
