"""A session's history as a Jupyter notebook (nbformat 4.5): what ran, and what it said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from executor.results import ExecutionResult, HistoryEntry, Output
from space.content import clean

_MAGIC = {"python": "", "javascript": "%%script node\n", "bash": "%%bash\n"}
_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".gif": "image/gif",
}

PicturesByPath = Mapping[str, str]
"""Base64 of pictures by their path in the session's folder; of SVG the text itself."""


def notebook(entries: Sequence[HistoryEntry], pictures: PicturesByPath) -> dict[str, Any]:
    """The notebook as JSON data, a cell for each entry, oldest first; pictures that are not given are left out.

    See https://nbformat.readthedocs.io/en/latest/format_description.html.
    """
    return {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "cells": [_cell(number, entry, pictures) for number, entry in enumerate(entries, 1)],
    }


def picture_paths(entries: Sequence[HistoryEntry]) -> list[str]:
    """The pictures that a notebook of these entries would like to have, newest first."""
    paths = [
        output.picture.path
        for entry in reversed(entries)
        for output in entry.result.outputs
        if output.picture and output.picture.path and picture_type(output.picture.path)
    ]
    return list(dict.fromkeys(paths))


def picture_type(path: str) -> str | None:
    """The MIME type of a picture by the end of its name."""
    return _TYPES.get(path[path.rfind(".") :].lower())


def _cell(number: int, entry: HistoryEntry, pictures: PicturesByPath) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "id": f"cell-{number}",
        "execution_count": number,
        "metadata": {},
        "source": clean(_MAGIC[entry.language] + entry.code),
        "outputs": _outputs(number, entry.result, pictures),
    }


def _outputs(number: int, result: ExecutionResult, pictures: PicturesByPath) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    for name, text in (("stdout", result.stdout), ("stderr", result.stderr)):
        if text:
            made.append({"output_type": "stream", "name": name, "text": clean(text)})
    for output in result.outputs:
        if data := _bundle(output, pictures):
            kind: dict[str, Any] = {"output_type": "display_data"}
            if output.is_result:
                kind = {"output_type": "execute_result", "execution_count": number}
            made.append({**kind, "metadata": {}, "data": data})
    if error := result.error:
        made.append(
            {
                "output_type": "error",
                "ename": clean(error.type),
                "evalue": clean(error.message),
                "traceback": clean(error.traceback).splitlines(),
            }
        )
    notes = [*(violation.message for violation in result.violations), *result.notices]
    if notes:
        made.append({"output_type": "stream", "name": "stderr", "text": clean("\n".join(notes)) + "\n"})
    return made


def _bundle(output: Output, pictures: PicturesByPath) -> dict[str, Any]:
    data = {
        clean(mime): clean(value) for mime, value in output.data.items() if isinstance(value, str) or "json" in mime
    }
    path = output.picture.path if output.picture else None
    if path in pictures and (mime := picture_type(path or "")):
        data[mime] = pictures[path or ""]
    return data
