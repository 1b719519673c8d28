"""The tool for packages: says while it runs what it does, and afterwards in words what can be imported now."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from executor import Package, PackageReport, Settings
from space import progress
from space.content import Answer, clean
from space.identity import Caller
from space.toolbox import SESSION_ID, Arguments, Hints, Tool, Toolbox, session_note

REPEAT_EVERY = 5.0
"""Seconds after which the last line is sent again, so that a client sees the call alive."""

_LISTED = 20
_PACKAGES = {"type": "array", "items": {"type": "object"}}

INSTALLED: dict[str, Any] = {
    "type": "object",
    "properties": {
        "success": {"type": "boolean"},
        "session_id": {"type": "string"},
        "language": {"enum": ["python", "javascript"]},
        "installed": {**_PACKAGES, "description": "name, version, requested, replaced"},
        "present": {**_PACKAGES, "description": "were there before"},
        "refused": {**_PACKAGES, "description": "request, reason"},
        "seconds": {"type": "number"},
        "size": {"type": "integer", "description": "bytes of all that the session has installed"},
        "notices": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["success", "session_id", "language", "installed", "present", "refused", "seconds", "size"],
}


async def install_packages(box: Toolbox, caller: Caller, values: Arguments) -> Answer:
    named = values["session_id"]
    async with _telling() as tell:
        report = await box.executor.install_packages(
            values["packages"],
            language=values["language"],
            owner=caller.owner,
            conversation=caller.conversation,
            session_id=named,
            progress=tell,
        )
    return package_answer(report, note=session_note(caller, named))


def package_answer(report: PackageReport, *, note: str = "") -> Answer:
    """The answer for one installation; an error where nothing that was asked for is there."""
    failed = not (report.installed or report.present)
    lines = []
    if asked := [package for package in report.installed if package.requested]:
        along = [package for package in report.installed if not package.requested]
        lines.append(f"Installed: {_names(asked)}{f', and with it {_names(along)}' if along else ''}. Import it now.")
    if report.present:
        lines.append(f"There already: {_names(report.present)}.")
    lines += [f"Not installed: {refusal.request}: {refusal.reason}." for refusal in report.refused]
    lines += report.notices
    text = "\n".join((*lines, f"session_id: {report.session_id}{note}"))
    return Answer(
        texts=(clean(f"Error: {text}" if failed else text),),
        structured=clean({**report.to_json(), "seconds": round(report.seconds, 3)}),
        is_error=failed,
        session_id=report.session_id,
    )


def package_tools(settings: Settings) -> tuple[Tool, ...]:
    """The tool."""
    off = "" if settings.packages else " Switched off here."
    return (
        Tool(
            name="install_packages",
            title="Install packages",
            description="Install packages from PyPI or npm into the session by name, such as polars or polars>=1; they "
            f"can be imported at once. The only way: pip and npm have no network.{off}",
            properties={
                "packages": {"type": "array", "items": {"type": "string"}},
                "language": {"type": "string", "enum": ["python", "javascript"], "default": "python"},
                "session_id": SESSION_ID,
            },
            required=("packages",),
            output=INSTALLED,
            run=install_packages,
            hints=Hints(idempotent=True, open_world=True),
        ),
    )


def _names(packages: Sequence[Package]) -> str:
    shown = ", ".join(f"{package.name} {package.version}" for package in packages[:_LISTED])
    rest = len(packages) - _LISTED
    return f"{shown} and {rest} more" if rest > 0 else shown


@asynccontextmanager
async def _telling() -> AsyncIterator[Callable[[str], None]]:
    """A function that takes sentences, each of which goes to the client of this call if it asked for progress."""
    if not progress.wanted():
        yield lambda _: None
        return
    sentences: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(_tell(sentences), name="package-progress")
    try:
        yield sentences.put_nowait
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _tell(sentences: asyncio.Queue[str]) -> None:
    began = time.monotonic()
    line = "Looking at what is there."
    while True:
        try:
            async with asyncio.timeout(REPEAT_EVERY):
                line = await sentences.get()
        except TimeoutError:
            pass  # the last one again
        await progress.report(time.monotonic() - began, line)
