"""What an execution gave, as HTML: nothing that the guest wrote is ever markup or script of our own page."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from executor.results import ErrorInfo, ExecutionResult, FileInfo, Output, Picture, Variable
from space.content import PICTURE_TYPES, clean, size_words

Link = Callable[[str], str]
"""Turns a path of the session's folder into an address that the browser can read the file at."""

SHOWN_CHARS = 100_000
"""Characters of one text that the page shows; a browser becomes slow with more."""
_LISTED_FILES = 50
_LISTED_VARIABLES = 200
_FULL_SIZE = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".svg")
_FRAME_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"
_FRAME_STYLE = (
    "body{font:14px/1.45 system-ui,sans-serif;margin:8px;color:#111;background:#fff}"
    "table{border-collapse:collapse}th,td{padding:3px 9px;border-bottom:1px solid #ddd;text-align:right}"
    "th:first-child{text-align:left}"
)
_FOR_A_MODEL = re.compile(r"(?:For others, )?open_session_page gives a person[^.]*\.")
"""What a hint tells a model of bringing in files, whom a page cannot be shown to."""
_STATUS = {
    "ok": "Done",
    "error": "Error",
    "timeout": "Stopped by the time limit",
    "interrupted": "Stopped",
    "blocked": "Refused by the rules, nothing was run",
    "memory": "Stopped by the memory limit",
    "disk": "Stopped: the session's folder is full",
    "crashed": "The process ended unexpectedly",
    "lost": "Lost",
}


def status_line(kind: str, sentence: str) -> str:
    """One line that says how things stand; `kind` is `ok`, `busy` or `bad`."""
    return f'<div class="ci-status ci-{kind}" role="status">{_text(sentence)}</div>'


def running_screen(printed: Sequence[tuple[str, str]], sentence: str = "Running …") -> str:
    """What a running cell printed so far: (stream, text) in order."""
    return status_line("busy", sentence) + _terminal(printed)


def finished_screen(result: ExecutionResult) -> str:
    """How an execution ended, what it printed, its error and our notes."""
    parts = [status_line("ok" if result.success else "bad", _headline(result))]
    printed = [("stdout", result.stdout), ("stderr", result.stderr)]
    if (error := result.error) and error.traceback and error.traceback not in result.stderr:
        printed.append(("stderr", _traceback(error)))
    notes = [violation.message for violation in result.violations] + list(result.notices)
    if error and error.hint:
        notes.insert(0, _FOR_A_MODEL.sub("Others can be dropped in the tab Files.", error.hint))
    if notes:  # before the output: one of them may say that the session is another one now
        parts.append(f'<ul class="ci-notes">{"".join(f"<li>{_text(note)}</li>" for note in notes[:30])}</ul>')
    parts.append(_terminal([(stream, text) for stream, text in printed if text]))
    return "".join(parts)


def displays(outputs: Iterable[Output], link: Link, *, key: str) -> str:
    """Values, tables and pictures in the order in which they were displayed.

    `key` (letters, digits, `-`, `_`) tells the pictures of this execution from others on the page.
    """
    parts: list[str] = []
    pictures: list[str] = []
    listed = list(outputs)
    drawn = any(output.picture for output in listed)
    for number, output in enumerate(listed):
        if output.picture is not None:
            pictures.append(_picture(output.picture, link, f"picture-{key}-{number}"))
        elif value := _value(output, drawn=drawn):
            parts.append(value)
    if pictures:
        parts.append(f'<div class="ci-gallery">{"".join(pictures)}</div>')
    return "".join(parts)


def new_files(files: Sequence[FileInfo], link: Link) -> str:
    """The files that a cell made or changed, to download."""
    if not files:
        return ""
    chips = [
        f'<a class="ci-chip" href="{_attribute(link(file.path))}" download>{_text(file.path)} '
        f"<small>{size_words(file.size)}</small></a>"
        for file in files[:_LISTED_FILES]
    ]
    if len(files) > _LISTED_FILES:
        chips.append(f"and {len(files) - _LISTED_FILES} more, in the tab Files")
    return f'<div class="ci-files">{" ".join(chips)}</div>'


def changed_variables(variables: Sequence[Variable]) -> str:
    """The variables that a cell made or changed, folded away."""
    if not variables:
        return ""
    rows = "".join(
        f"<tr><td><code>{_text(v.name)}</code></td><td>{_text(v.type)}</td><td>{_text(v.summary)}</td>"
        f"<td>{_text(v.change)}</td></tr>"
        for v in variables[:_LISTED_VARIABLES]
    )
    return (
        f'<details class="ci-variables"><summary>Variables, new or changed: {len(variables)}</summary>'
        f'<div class="ci-wide"><table class="ci-table"><tbody>{rows}</tbody></table></div></details>'
    )


def all_variables(variables: Sequence[Variable]) -> str:
    """Every variable that is known of a session, folded away."""
    if not variables:
        return ""
    rows = "".join(
        f"<tr><td><code>{_text(v.name)}</code></td><td>{_text(v.type)}</td><td>{_text(v.summary)}</td></tr>"
        for v in variables
    )
    return (
        f'<details class="ci-variables"><summary>All variables: {len(variables)}</summary>'
        f'<div class="ci-wide"><table class="ci-table"><tbody>{rows}</tbody></table></div></details>'
    )


def frame(markup: str) -> str:
    """Guest HTML in a frame of no origin: no script runs, nothing is loaded, nothing outside of it can be reached."""
    page = (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{_FRAME_POLICY}">'
        f"<style>{_FRAME_STYLE}</style>{clean(markup)}"
    )
    # without a script it cannot tell its height; rows are the best guess, and the reader can drag the corner
    height = min(480, 60 + 26 * max(1, markup.count("<tr") or markup.count("\n") // 2))
    note = ""
    if "<script" in markup.lower():
        note = '<small class="ci-note">Scripts in this HTML do not run on this page.</small>'
    return (
        f'<iframe class="ci-frame" sandbox="" referrerpolicy="no-referrer" title="Displayed HTML" '
        f'style="height:{height}px" srcdoc="{_attribute(page)}"></iframe>{note}'
    )


def _headline(result: ExecutionResult) -> str:
    said = _STATUS.get(result.status, result.status)
    if (error := result.error) and result.status == "error":
        said = f"{error.type}: {error.message}"[:2_000] if error.message else error.type
        if error.line:
            said += f" (line {error.line})"
    elif result.status == "error":
        said = f"Exit status {result.return_code}"
    return f"{said} · {_seconds(result.execution_time)}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _traceback(error: ErrorInfo) -> str:
    # its last line is the status line's
    return error.traceback.rstrip().removesuffix(f"{error.type}: {error.message}").rstrip()


def _terminal(printed: Sequence[tuple[str, str]]) -> str:
    if not any(text for _, text in printed):
        return ""
    room, pieces = SHOWN_CHARS, []
    for stream, text in reversed(printed):
        kept = text[-room:] if room else ""
        room -= len(kept)
        if kept:
            pieces.append(f'<span class="ci-{"err" if stream == "stderr" else "out"}">{_text(kept)}</span>')
    return f'<pre class="ci-terminal" tabindex="0" aria-label="Output"><code>{"".join(reversed(pieces))}</code></pre>'


def _value(output: Output, *, drawn: bool) -> str:
    data = output.data
    if isinstance(markup := data.get("text/html"), str) and markup.strip():
        return frame(markup[: 10 * SHOWN_CHARS])
    if isinstance(svg := data.get("image/svg+xml"), str) and svg.strip():
        encoded = base64.b64encode(clean(svg).encode()).decode()
        # an <img> runs no script, not even an SVG's
        return (
            f'<div class="ci-gallery"><img class="ci-sheet" alt="SVG" src="data:image/svg+xml;base64,{encoded}"></div>'
        )
    for mime in ("text/markdown", "text/latex"):
        if isinstance(text := data.get(mime), str) and text.strip():
            return _block(text)
    plain = data.get("text/plain")
    if "application/json" in data:
        return _block(json.dumps(clean(data["application/json"]), ensure_ascii=False, indent=2))
    # beside a picture, `[<matplotlib.lines.Line2D at 0x7f…>]` tells nobody anything
    if isinstance(plain, str) and plain.strip() and not (drawn and plain.lstrip("[(").startswith("<")):
        return _block(plain)
    return ""


def _picture(picture: Picture, link: Link, name: str) -> str:
    small = ""
    if picture.mime in PICTURE_TYPES and picture.data:
        small = f"data:{picture.mime};base64,{picture.data}"
    full = link(picture.path) if picture.path and picture.path.lower().endswith(_FULL_SIZE) else small
    if not (small or full):
        return ""
    alt = _attribute(picture.alt or picture.path or "picture")
    about = f"{picture.path or 'picture'} · {int(picture.width)} by {int(picture.height)}"
    download = f' · <a href="{_attribute(full)}" download>full size</a>' if picture.path and full else ""
    return (
        f'<figure class="ci-picture"><button type="button" popovertarget="{name}" aria-label="Show at full size">'
        f'<img class="ci-sheet" src="{_attribute(small or full)}" alt="{alt}"></button>'
        f"<figcaption>{_text(about)}{download}</figcaption>"
        f'<div id="{name}" popover class="ci-full">'
        f'<img class="ci-sheet" src="{_attribute(full or small)}" alt="{alt}" loading="lazy"></div></figure>'
    )


def _block(text: str) -> str:
    if len(text) > SHOWN_CHARS:
        text = f"{text[:SHOWN_CHARS]}\n… {len(text) - SHOWN_CHARS:,} characters more …"
    return f'<pre class="ci-value" tabindex="0">{_text(text)}</pre>'


def _text(value: Any) -> str:
    return html.escape(str(clean(value)), quote=True)


def _attribute(value: str) -> str:
    return html.escape(clean(value), quote=True)
