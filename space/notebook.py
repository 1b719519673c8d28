"""A session as a Jupyter notebook (nbformat 4.5), made while it is sent: no picture is ever held as a whole.

See https://nbformat.readthedocs.io/en/latest/format_description.html.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import json
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

from executor import Executor
from executor.errors import ExecutorError
from executor.results import ExecutionResult, FileInfo, HistoryEntry, Output, Picture
from space.content import PICTURE_TYPES, clean
from space.links import Grant

NAME = "session.ipynb"
MIME = "application/x-ipynb+json"
PICTURE_BYTES = 64 * 2**20
"""Bytes of full-size pictures in one notebook, the newest first; more, and browsers cannot open it."""
READY = """import base64
import io
import json
import math
import random
from datetime import datetime, timedelta

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd"""
"""What a session finds imported without a cell that says so."""

_MAGIC = {"python": "", "javascript": "%%script node\n", "bash": "%%bash\n"}
_STOP = {
    "python": 'raise RuntimeError("{}")\n',
    "javascript": 'throw new Error("{}");\n',
    "bash": 'echo "{}" >&2; exit 1\n',
}
"""The first line of a cell whose code was cut: it says so, and the rest, which may end within any line, is not run."""
_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
    ".gif": "image/gif",
}
_END = """], "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}, \
"language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}
"""


async def notebook(executor: Executor, grant: Grant, files: Sequence[FileInfo]) -> AsyncGenerator[bytes, None]:
    """The notebook's JSON as UTF-8, a cell for each execution that the session remembers, oldest first.

    `files` is what the session's folder holds: a picture is at full size where its file is there, else as small as it
    was sent, where that is still known. Raises an ExecutorError before the first byte where the session has ended.
    """
    entries = await executor.history(grant.session_id, owner=grant.owner, conversation=grant.conversation)
    album = _Album(executor, grant, files, entries)
    yield b'{"cells": ['
    comma = ""
    if any(entry.language == "python" for entry in entries):
        yield f"{_cell('ready', None, READY)}]}}".encode()
        comma = ", "
    for number, entry in enumerate(entries, 1):
        yield (comma + _cell(f"cell-{number}", number, _source(entry))).encode()
        async for part in _outputs(number, entry, album):
            yield part.encode()
        yield b"]}"
        comma = ", "
    yield _END.encode()


def _source(entry: HistoryEntry) -> str:
    stop = _STOP[entry.language].format(entry.cut) if entry.cut else ""
    return _MAGIC[entry.language] + stop + entry.code


def _cell(name: str, number: int | None, code: str) -> str:
    """A code cell up to the beginning of its outputs."""
    cell = {"cell_type": "code", "id": name, "execution_count": number, "metadata": {}, "source": clean(code)}
    return f'{_dumped(cell)[:-1]}, "outputs": ['


async def _outputs(number: int, entry: HistoryEntry, album: _Album) -> AsyncIterator[str]:
    """The outputs of a cell, in parts."""
    result = entry.result
    comma = ""
    for made in _streams(result):
        yield comma + _dumped(made)
        comma = ", "
    for index, output in enumerate(result.outputs):
        kind: dict[str, Any] = {"output_type": "display_data"}
        if output.is_result:
            kind = {"output_type": "execute_result", "execution_count": number}
        # a form may have megabytes
        bundle = await asyncio.to_thread(_bundle, output)
        yield f'{comma}{_dumped({**kind, "metadata": {}})[:-1]}, "data": {bundle[:-1]}'
        comma = ", " if bundle != "{}" else ""
        if output.picture is not None:
            async for part in album.picture(entry, index, output.picture):
                yield comma + part
                comma = ""
        yield "}}"
        comma = ", "
    for made in _complaints(result):
        yield comma + _dumped(made)
        comma = ", "


def _streams(result: ExecutionResult) -> list[dict[str, Any]]:
    return [
        {"output_type": "stream", "name": name, "text": clean(text)}
        for name, text in (("stdout", result.stdout), ("stderr", result.stderr))
        if text
    ]


def _complaints(result: ExecutionResult) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
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


def _bundle(output: Output) -> str:
    """The forms of a value as JSON: text, and what is JSON itself."""
    return _dumped(
        {
            clean(mime): clean(value)
            for mime, value in output.data.items()
            if isinstance(value, str) or mime == "application/json" or mime.endswith("+json")
        }
    )


class _Album:
    """The pictures of the entries, each as the member of a bundle."""

    def __init__(
        self, executor: Executor, grant: Grant, files: Sequence[FileInfo], entries: Sequence[HistoryEntry]
    ) -> None:
        self._executor = executor
        self._grant = grant
        self._whole: dict[str, FileInfo] = {}
        there = {file.path: file for file in files if picture_type(file.path)}
        room = PICTURE_BYTES
        for path in _paths(entries):
            if (file := there.get(path)) is not None and file.size <= room:
                room -= file.size
                self._whole[path] = file
        self._small: tuple[str, ExecutionResult | None] = ("", None)

    async def picture(self, entry: HistoryEntry, index: int, picture: Picture) -> AsyncIterator[str]:
        """The picture of the entry's output `index`, at full size if that can be; nothing where there is none."""
        file = self._whole.get(picture.path or "")
        if file is not None:
            began = False
            async for part in self._file(file):
                began = True
                yield part
            if began:
                return
        small = await self._sent(entry, index)
        if small is not None and small.data and small.mime in PICTURE_TYPES:
            yield f"{_dumped(small.mime)}: {_dumped(small.data)}"

    async def _file(self, file: FileInfo) -> AsyncIterator[str]:
        grant = self._grant
        reading = self._executor.get_file(
            grant.session_id, file.path, length=file.size, owner=grant.owner, conversation=grant.conversation
        )
        mime = picture_type(file.path)
        text = codecs.getincrementaldecoder("utf-8")("replace") if mime == "image/svg+xml" else None
        began = False
        rest = b""
        async with contextlib.aclosing(reading) as chunks:
            try:
                async for chunk in chunks:
                    if not began:
                        yield f'{_dumped(mime)}: "'
                        began = True
                    if text is not None:
                        yield _dumped(text.decode(chunk))[1:-1]
                    else:
                        # three bytes become four characters, and only the end may be padded
                        data = rest + chunk
                        fits = len(data) // 3 * 3
                        rest = data[fits:]
                        yield b64encode(data[:fits]).decode()
            except ExecutorError:
                if not began:
                    return  # the code has deleted it since
        if began:
            yield b64encode(rest).decode() + '"'

    async def _sent(self, entry: HistoryEntry, index: int) -> Picture | None:
        """The picture as it was sent, which the history does not keep, but the execution for a while."""
        execution_id, grant = entry.result.execution_id, self._grant
        if self._small[0] != execution_id:
            result = None
            with contextlib.suppress(ExecutorError):
                result = await self._executor.so_far(
                    session_id=grant.session_id,
                    owner=grant.owner,
                    conversation=grant.conversation,
                    execution_id=execution_id,
                )
            self._small = execution_id, result
        known = self._small[1]
        return known.outputs[index].picture if known is not None and index < len(known.outputs) else None


def _paths(entries: Sequence[HistoryEntry]) -> list[str]:
    """The pictures that a notebook of these entries would like to have, newest first."""
    paths = [
        output.picture.path
        for entry in reversed(entries)
        for output in entry.result.outputs
        if output.picture and output.picture.path
    ]
    return list(dict.fromkeys(paths))


def pictures_in(entries: Sequence[HistoryEntry]) -> int:
    """How many pictures the entries displayed."""
    return sum(output.picture is not None for entry in entries for output in entry.result.outputs)


def picture_type(path: str) -> str | None:
    """The MIME type of a picture by the end of its name."""
    return _TYPES.get(path[path.rfind(".") :].lower())


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
