"""A session as a notebook and as a zip: valid, whole, and never held as a whole."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import pytest_asyncio
from PIL import Image

from executor import NoSuchSession
from executor.languages.warming import READY_NAMES
from executor.sessions import HISTORY_CODE
from space import notebook
from space.archive import free_name
from space.links import Grant
from tests.space.served import Served, served

on_the_sites_loop = pytest.mark.asyncio(loop_scope="module")

# What nbformat 4.5 asks of a code cell, in its own words of JSON Schema
TEXT = {"type": "string"}
BUNDLE = {
    "type": "object",
    "patternProperties": {r"^application/(.*\+)?json$": {}},
    "additionalProperties": {"type": "string"},
}


def kind(name: str, properties: dict[str, Any]) -> dict[str, Any]:
    """An output of that kind, with these keys and no other."""
    properties = {"output_type": {"const": name}, **properties}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


OUTPUT = {
    "oneOf": [
        kind("stream", {"name": {"enum": ["stdout", "stderr"]}, "text": TEXT}),
        kind("display_data", {"data": BUNDLE, "metadata": {"type": "object"}}),
        kind(
            "execute_result", {"data": BUNDLE, "metadata": {"type": "object"}, "execution_count": {"type": "integer"}}
        ),
        kind("error", {"ename": TEXT, "evalue": TEXT, "traceback": {"type": "array", "items": TEXT}}),
    ]
}
CELL = {
    "type": "object",
    "properties": {
        "cell_type": {"const": "code"},
        "id": {"type": "string", "pattern": "^[a-zA-Z0-9-_]{1,64}$"},
        "metadata": {"type": "object"},
        "execution_count": {"type": ["integer", "null"], "minimum": 0},
        "source": TEXT,
        "outputs": {"type": "array", "items": OUTPUT},
    },
    "required": ["cell_type", "id", "metadata", "execution_count", "source", "outputs"],
    "additionalProperties": False,
}
NOTEBOOK = {
    "type": "object",
    "properties": {
        "nbformat": {"const": 4},
        "nbformat_minor": {"const": 5},
        "metadata": {
            "type": "object",
            "properties": {"kernelspec": {"type": "object", "required": ["name", "display_name"]}},
        },
        "cells": {"type": "array", "items": CELL},
    },
    "required": ["nbformat", "nbformat_minor", "metadata", "cells"],
    "additionalProperties": False,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    async with served(tmp_path_factory.mktemp("state")) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def space(site: Served) -> AsyncIterator[Served]:
    """A session of the test's own."""
    session = await site.executor.create_session(owner="alice")
    yield replace(site, grant=Grant("alice", None, session.id))
    with contextlib.suppress(NoSuchSession):  # the test has closed it
        await site.executor.close_session(session.id, owner="alice")


async def run(space: Served, code: str, language: str = "python") -> Any:
    """Run code that may fail."""
    return await space.executor.execute(code, language=language, owner="alice", session_id=space.grant.session_id)


async def fetched(space: Served) -> Any:
    """The notebook, valid."""
    answer = await space.http.get(space.links.notebook(space.grant))
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ipynb+json"
    assert "session.ipynb" in answer.headers["content-disposition"]
    made = json.loads(answer.content)
    jsonschema.Draft7Validator(NOTEBOOK).validate(made)
    assert len({cell["id"] for cell in made["cells"]}) == len(made["cells"])
    return made


@on_the_sites_loop
async def test_a_notebook_has_what_ran_and_what_it_said(space: Served) -> None:
    await run(space, "print(1)\nimport sys; print('\\udcff', file=sys.stderr)")
    await run(space, "'ü'")
    await run(space, "1 / 0")
    await run(space, "echo hi; exit 3", "bash")
    await run(space, "[1, {a: 2}]", "javascript")
    await run(space, "display({'application/json': {'a': [1]}, 'text/html': '<b>\"</b>'}, raw=True)")
    ready, *cells = (await fetched(space))["cells"]
    assert ready["source"] == notebook.READY and ready["execution_count"] is None
    assert [cell["source"] for cell in cells[2:5]] == [
        "1 / 0",
        "%%bash\necho hi; exit 3",
        "%%script node\n[1, {a: 2}]",
    ]
    assert [cell["execution_count"] for cell in cells] == [1, 2, 3, 4, 5, 6]
    assert cells[0]["outputs"][0] == {"output_type": "stream", "name": "stdout", "text": "1\n"}
    assert cells[1]["outputs"][0]["output_type"] == "execute_result"
    assert cells[1]["outputs"][0]["data"]["text/plain"] == "'ü'"
    assert cells[2]["outputs"][-1]["ename"] == "ZeroDivisionError"
    assert cells[5]["outputs"][0]["data"]["application/json"] == {"a": [1]}
    assert cells[5]["outputs"][0]["data"]["text/html"] == '<b>"</b>'


def test_what_a_session_has_ready_is_the_first_cell() -> None:
    names: dict[str, Any] = {}
    exec(compile(notebook.READY, "ready", "exec"), names)
    assert {name: names.get(name) for name in READY_NAMES} == READY_NAMES


@on_the_sites_loop
async def test_a_cell_whose_code_was_cut_says_so_and_runs_nothing_of_it(space: Served, tmp_path: Path) -> None:
    filling = "\n" * HISTORY_CODE
    await run(space, f"print('ran')\n{filling}", "python")
    await run(space, f"echo ran\n{filling}", "bash")
    await run(space, f"console.log('ran')\n{filling}", "javascript")
    _, python, bash, javascript = (await fetched(space))["cells"]
    programs = {sys.executable: python["source"]}
    assert bash["source"].startswith("%%bash\n") and javascript["source"].startswith("%%script node\n")
    programs["bash"] = bash["source"].partition("\n")[2]
    programs["node"] = javascript["source"].partition("\n")[2]
    for program, source in programs.items():
        assert "Only the first 20,000 of 20,0" in source.partition("\n")[0]
        (tmp_path / "cell").write_text(source)
        done = subprocess.run([program, tmp_path / "cell"], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode and "ran" not in done.stdout and "characters of this code were kept" in done.stderr


@on_the_sites_loop
async def test_pictures_are_at_full_size_where_their_file_is_and_else_as_they_were_sent(space: Served) -> None:
    await run(space, "plt.figure(figsize=(40, 30))\nplt.imshow(np.random.rand(300, 400))\nplt.show()")
    await run(space, "plt.plot([1, 2])\nplt.show()\nimport os\nos.remove('plots/2.png')")
    await run(space, "from IPython.display import SVG\nSVG('<svg xmlns=\"http://www.w3.org/2000/svg\"/>')")
    _, whole, small, drawn = (await fetched(space))["cells"]
    picture = Image.open(io.BytesIO(base64.b64decode(whole["outputs"][0]["data"]["image/png"])))
    assert picture.size == (4000, 3000)
    data = small["outputs"][0]["data"]
    kept = next(value for mime, value in data.items() if mime.startswith("image/"))
    assert Image.open(io.BytesIO(base64.b64decode(kept))).width >= 320
    assert drawn["outputs"][0]["data"]["image/svg+xml"].startswith("<svg")


@on_the_sites_loop
async def test_pictures_beyond_the_room_are_as_they_were_sent(space: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    await run(space, "plt.imshow(np.random.rand(300, 400)); plt.show()")
    await run(space, "plt.plot([1, 2]); plt.show()")
    sizes = [file.size for file in await space.executor.list_files(space.grant.session_id, owner="alice")]
    monkeypatch.setattr(notebook, "PICTURE_BYTES", sizes[1])
    _, old, new = (await fetched(space))["cells"]
    # the newest has the room
    assert len(base64.b64decode(new["outputs"][0]["data"]["image/png"])) == sizes[1]
    data = old["outputs"][0]["data"]
    sent = next(value for mime, value in data.items() if mime.startswith("image/"))
    assert 0 < len(base64.b64decode(sent)) < sizes[0]


@on_the_sites_loop
async def test_a_session_where_nothing_ran_is_an_empty_notebook(space: Served) -> None:
    assert (await fetched(space))["cells"] == []


@on_the_sites_loop
async def test_the_zip_has_the_files_and_a_notebook_under_a_name_of_its_own(space: Served) -> None:
    await run(space, "open('session.ipynb', 'w').write('mine')\nplt.plot([1, 2]); plt.show()")
    answer = await space.http.get(space.links.export(space.grant))
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        assert set(archive.namelist()) == {"session.ipynb", "session (2).ipynb", "plots/1.png"}
        assert archive.read("session.ipynb") == b"mine"
        made = json.loads(archive.read("session (2).ipynb"))
    jsonschema.Draft7Validator(NOTEBOOK).validate(made)
    assert made["cells"][1]["outputs"][0]["data"]["image/png"]
    assert free_name("a.b", {"a.b", "a (2).b"}) == "a (3).b"


@on_the_sites_loop
async def test_a_link_to_one_is_no_link_to_the_other_and_ends_with_the_session(space: Served) -> None:
    token = space.links.notebook(space.grant).rpartition("/")[2]
    assert (await space.http.put(f"/upload/{token}/x", content=b"1")).status_code == 403
    head = await space.http.head(space.links.notebook(space.grant))
    assert head.status_code == 200 and head.content == b""
    await space.executor.close_session(space.grant.session_id, owner="alice")
    for link in (space.links.notebook(space.grant), space.links.export(space.grant)):
        answer: httpx.Response = await space.http.get(link)
        assert answer.status_code == 410 and "ended" in answer.json()["error"]
