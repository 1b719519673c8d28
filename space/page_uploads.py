"""Files that a browser sends to Gradio itself: one that breaks off in the middle leaves nothing behind."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gradio.route_utils import GradioMultiPartParser
from starlette.datastructures import FormData


def forget_broken_uploads() -> None:
    """Have Gradio delete what it has taken in of a form that it cannot finish reading.

    Its parser writes parts to files under names of their own, and when the client dies it neither closes nor deletes
    them: its `delete_cache` knows only files that came in whole. Idempotent.
    """
    original = GradioMultiPartParser.parse
    if getattr(original, "_forgets", False):
        return

    async def parse(self: GradioMultiPartParser) -> FormData:
        try:
            return await original(self)
        except BaseException:
            _delete(self._files_to_close_on_error)
            raise

    parse._forgets = True  # type: ignore[attr-defined]
    GradioMultiPartParser.parse = parse  # type: ignore[method-assign]


def _delete(files: Iterable[Any]) -> None:
    for file in files:
        file.close()
        with contextlib.suppress(OSError):
            Path(file.name).unlink()
