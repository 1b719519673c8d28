"""What one cell shows: values become MIME bundles and pictures, bounded, within the cell's budget."""

from __future__ import annotations

import hashlib
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sized
from typing import Any, Protocol, cast
from weakref import WeakSet

import PIL.Image
from matplotlib.figure import Figure

from executor.languages import charts, figures
from executor.languages.bundles import WRAPPER, clean_text, json_size, json_value, svg_words, words_for
from executor.languages.channel import MAX_NOTICE, PictureData
from executor.languages.charts import PLOTLY, chart_words
from executor.languages.control import Control
from executor.languages.digests import MAX_ITEMS
from executor.languages.pictures import (
    MAX_PICTURE_CHARS,
    MIN_PICTURE_CHARS,
    Plots,
    Source,
    decode,
    encode,
    full_size,
)
from executor.languages.traceback import Tracebacks

MAX_TEXT = 100_000
"""Characters kept of a value's plain text."""
MAX_DATA = 2_000_000
"""Characters of any other form; longer ones are left out."""
MAX_NOTICES = 40

_RASTER = ("image/png", "image/jpeg", "image/webp", "image/gif")
_DROPPED = frozenset({*_RASTER, "application/pdf"})
_BUILTIN = frozenset({int, float, complex, bool, str, bytes, list, tuple, dict, set, frozenset, range, type(None)})
_CONTAINERS = frozenset({list, tuple, dict, set, frozenset})
_clock = time.monotonic


class Shell(Protocol):
    """The part of the shell that is needed here."""

    display_formatter: Any
    display_pub: Any
    complaints: list[BaseException] | None
    tracebacks: Tracebacks


class Displays:
    """Sends what a cell shows; nowhere until it is connected."""

    def __init__(self, shell: Shell) -> None:
        self._shell = shell
        self._control: Control | None = None
        self._plots: Plots | None = None
        self._publisher = shell.display_pub
        forms = shell.display_formatter.formatters
        self._printers = [form.type_printers for mime, form in forms.items() if mime != "text/plain"]
        self._told_no_picture = False
        for module, name in charts.DISPLAYED_BY_US:
            shell.display_formatter.ipython_display_formatter.for_type_by_name(module, name, self.show)
        charts.watch_plotly(self.show, self.note)
        self.begin("", 0)

    def connect(self, control: Control, plots: Plots) -> None:
        """Send to `control` from now on, and keep full-size pictures in `plots`."""
        self._control, self._plots = control, plots

    def begin(self, execution_id: str, picture_chars: int) -> None:
        """A cell starts that may send `picture_chars` characters of base64."""
        self._id = execution_id
        self._budget = picture_chars
        self._ending = False
        self._shell.display_pub = self._publisher  # whatever the cell before put there
        self.notices: list[str] = []
        self._seen: dict[bytes, str] = {}
        self._shown: WeakSet[Figure] = WeakSet()
        self._updates: dict[str, dict[str, Any]] = {}
        self._left_out: list[str] = []

    def finish(self) -> list[str]:
        """Send what was held back; returns the cell's notices."""
        for data in self._updates.values():
            self._emit(data)
        self._updates = {}
        if self._left_out:
            names = ", ".join(self._left_out[:20]) + (" …" if len(self._left_out) > 20 else "")
            what = _count(len(self._left_out), "picture")
            self.note(f"No room for {what} in this answer; full size in the session's folder: {names}")
            self._left_out = []
        if len(self.notices) > MAX_NOTICES:
            more = len(self.notices) - MAX_NOTICES
            self.notices[MAX_NOTICES:] = [f"… and {more} more notices."]
        return self.notices

    def note(self, sentence: str) -> None:
        """Add a notice, once; a long one without its end."""
        if len(sentence) > MAX_NOTICE:
            sentence = f"{sentence[: MAX_NOTICE - 1]}…"
        if sentence not in self.notices:
            self.notices.append(sentence)

    def show(self, value: object, *, is_result: bool = False) -> None:
        """Show `value`; `is_result` for that of a cell's last expression."""
        if isinstance(value, Figure):
            if figures.empty(value):
                self._emit({"text/plain": repr(value)}, is_result=is_result)
            else:
                self._figure(value, is_result=is_result)
        elif isinstance(value, PIL.Image.Image):
            self._image(value, is_result=is_result)
        elif charts.is_chart(value):
            self._chart(value, is_result=is_result)
        elif (data := self._bundle(value)) is not None:
            self._emit(data, is_result=is_result)

    def publish(self, data: Mapping[str, Any], *, display_id: str | None = None, update: bool = False) -> None:
        """Show a ready bundle. Of the updates of one `display_id` the last one is sent, at the cell's end."""
        if update and display_id is not None:
            self._updates.pop(display_id, None)
            self._updates[display_id] = dict(data)
        else:
            self._emit(dict(data))

    def end(self, *, seconds: float | None) -> None:
        """The cell's code has ended: show the figures that it left open."""
        self._ending = True
        self.show_figures(seconds=seconds)

    def show_figures(self, figure: Figure | None = None, *, seconds: float | None = None) -> None:
        """Show `figure`, or all open ones, which are closed then.

        No drawing starts after `seconds`, if given; what is left is closed with a notice.
        """
        pending = figures.open_figures() if figure is None else [figure]
        until = None if seconds is None else _clock() + seconds
        try:
            for index, each in enumerate(pending):
                if until is not None and _clock() > until:
                    self.note(f"{_count(len(pending) - index, 'open figure')} could not be drawn in time.")
                    break
                if figures.empty(each):
                    continue
                if each not in self._shown or not figures.unchanged(each):
                    self._figure(each, pending=len(pending) - index)
        finally:
            if figure is None:
                for each in pending:
                    figures.close(each)

    def _figure(self, figure: Figure, *, is_result: bool = False, pending: int = 1) -> None:
        text = repr(figure)
        try:
            image = figures.draw(figure)
        except Exception as error:
            described = self._shell.tracebacks.describe(error)
            self.note(f"{text} could not be drawn: {described['type']}: {described['message']}")
            sys.stderr.write(f"{text} could not be drawn.\n{described['traceback']}\n")
            return
        self._shown.add(figure)
        try:
            alt = figures.describe(figure)
        except Exception:
            alt = ""  # titles may be any object of the guest's
        if not self._published(image, text):
            self._send_picture(Source(image), {"text/plain": text}, alt, is_result, pending)

    def _image(self, image: PIL.Image.Image, *, is_result: bool) -> None:
        text = f"<{type(image).__name__} {image.mode} {image.width}x{image.height}>"
        if not self._published(image, text):
            self._send_picture(Source(image), {"text/plain": text}, "", is_result)

    def _chart(self, chart: object, *, is_result: bool) -> None:
        data, errors = charts.bundle(chart)
        name = type(chart).__name__
        for described in map(self._shell.tracebacks.describe, errors):
            first = described["message"].partition("\n")[0]
            self.note(f"The {name} cannot be shown to the user as it is: {described['type']}: {first}")
        try:
            picture = charts.static_picture(chart)
        except Exception as error:
            described = self._shell.tracebacks.describe(error)
            first = described["message"].partition("\n")[0]
            self.note(f"No picture could be made of the {name}: {described['type']}: {first}")
            picture = None
        if picture is not None:
            data["image/png"] = picture
        elif charts.needs_browser(chart) and not self._told_no_picture:
            self._told_no_picture = True
            self.note(charts.NO_PICTURE)
        publisher = self._shell.display_pub
        if publisher is not self._publisher:
            publisher.publish(data, {})  # %%capture, for one
        else:
            self._emit(data, is_result=is_result)

    def _published(self, image: PIL.Image.Image, text: str) -> bool:
        """Hand the picture to whoever stands in for our publisher, %%capture for one."""
        publisher = self._shell.display_pub
        if publisher is self._publisher:
            return False
        publisher.publish({"text/plain": text, "image/png": b64encode(full_size(Source(image))).decode()}, {})
        return True

    def _bundle(self, value: object) -> dict[str, Any] | None:
        formatter = self._shell.display_formatter
        forms = formatter.formatters
        complaints: list[BaseException] = []
        self._shell.complaints = complaints
        try:
            plain = forms["text/plain"]
            if type(value) in _BUILTIN and not any(type(value) in printers for printers in self._printers):
                text = plain(value)  # the other forms would be asked for nothing
                if type(value) in _CONTAINERS and (count := len(cast(Sized, value))) > MAX_ITEMS:
                    text = f"{text}\n({type(value).__name__} of {count:,} items, the first {MAX_ITEMS} are shown)"
                data = {"text/plain": text}
            else:
                data, _ = formatter.format(value)
        finally:
            self._shell.complaints = None
        if not data and not complaints:
            return None  # the object has shown itself
        if PLOTLY in data:
            complaints.clear()  # it misses a package only for the way that notebooks of old took
        headlines = [f"{e['type']}: {e['message']}" for e in map(self._shell.tracebacks.describe, complaints)]
        if data.get("text/plain") is None:
            reason = headlines.pop(0) if headlines else "it gave no text"
            data["text/plain"] = f"<{type(value).__name__} object whose repr failed: {reason}>"
        for headline in headlines:
            self.note(f"One form of a {type(value).__name__} could not be made: {headline}")
        return data

    def _emit(self, data: dict[str, Any], *, is_result: bool = False) -> None:
        source = None
        for mime in _RASTER:
            if source is None and (raw := data.get(mime)) is not None:
                source = self._decoded(raw)
        clean = self._clean(data)
        if source is None and isinstance(drawing := clean.get("image/svg+xml"), str):
            self._keep_drawing(drawing, clean)
        if source is not None:
            self._send_picture(source, clean, "", is_result)
        elif clean:
            self._send(clean, None, is_result)

    def _keep_drawing(self, drawing: str, data: dict[str, Any]) -> None:
        """Keep an SVG as a file, and say where: a reader who gets text alone cannot see it."""
        file = drawing.encode()
        digest = hashlib.blake2b(file, digest_size=16).digest()
        words = data.get("text/plain") or svg_words(drawing)
        if digest in self._seen:
            data["text/plain"] = f"{words} (the same picture as {self._seen[digest]})"
        elif path := self._keep(file, "svg"):
            self._seen[digest] = path
            data["text/plain"] = f"{words} (in {path})"

    def _decoded(self, raw: object) -> Source | None:
        try:
            return decode(raw if isinstance(raw, bytes) else b64decode(str(raw)))
        except ValueError as error:
            self.note(f"A picture could not be shown: {error}")
            return None

    def _clean(self, data: Mapping[str, Any]) -> dict[str, Any]:
        clean: dict[str, Any] = {}
        for mime, item in data.items():
            if not isinstance(mime, str) or mime in _DROPPED or item is None:
                continue
            if mime == "text/plain":
                clean[mime] = self._shorten(clean_text(str(item)))
                continue
            value = clean_text(item) if isinstance(item, str) else json_value(item)
            size = len(value) if isinstance(value, str) else json_size(value)
            if size > MAX_DATA:
                self.note(f"A displayed value's {mime} of {size} characters is over {MAX_DATA} and was left out.")
            else:
                clean[mime] = value
        if words := chart_words(clean):
            clean["text/plain"] = words  # its own would be all the data
        elif WRAPPER.fullmatch(clean.get("text/plain", "")):
            clean["text/plain"] = words_for(clean)
        return clean

    def _shorten(self, text: str) -> str:
        if len(text) <= MAX_TEXT:
            return text
        half = MAX_TEXT // 2
        cut = len(text) - 2 * half
        self.note(f"A displayed value has {len(text)} characters; {cut} in its middle were left out.")
        return f"{text[:half]}\n… {cut} characters left out …\n{text[-half:]}"

    def _send_picture(self, source: Source, data: dict[str, Any], alt: str, is_result: bool, pending: int = 1) -> None:
        text = data.get("text/plain", "")
        try:
            digest = source.digest()
            if digest in self._seen:
                data["text/plain"] = f"{text} (the same picture as {self._seen[digest]})"
                self._send(data, None, is_result)
                return
            file = full_size(source)
            path = self._keep(file, source.suffix)
            # while the cell runs more may come: half is left for it
            parts = pending if self._ending else max(pending, 2)
            share = max(self._budget // parts, min(MIN_PICTURE_CHARS, self._budget))
            picture = encode(source, limit=min(share, MAX_PICTURE_CHARS), alt=alt, file=file)
            if picture is None and pending == 1 and share < self._budget:
                # nothing else is known to need the rest, and half of it was too little
                picture = encode(source, limit=min(self._budget, MAX_PICTURE_CHARS), alt=alt, file=file)
        except Exception as error:
            self.note(f"A picture could not be made ready: {type(error).__name__}: {error}")
            self._send(data, None, is_result)
            return
        self._seen[digest] = path or "the one above"
        if picture is None:
            self._left_out.append(path or text)
            picture = PictureData(
                mime="image/png", data="", width=source.image.width, height=source.image.height, path=path, alt=alt
            )
        self._budget -= len(picture["data"])
        picture["path"] = path
        self._send(data, picture, is_result)

    def _keep(self, file: bytes, suffix: str) -> str | None:
        if self._plots is None:
            return None
        try:
            return self._plots.keep(file, suffix)
        except OSError as error:
            self.note(f"The full-size pictures could not be kept as files: {error.strerror or error}.")
            return None

    def _send(self, data: dict[str, Any], picture: PictureData | None, is_result: bool) -> None:
        if self._control is None:
            return
        if self._control.detached:
            sys.stdout.write(f"{data.get('text/plain', '')}\n")  # a forked child has no other way to be seen
            return
        event = {"event": "display", "id": self._id, "data": data, "picture": picture, "is_result": is_result}
        try:
            # the value of a last expression is followed by the end of the cell
            self._control.send(event, hold=is_result and picture is None)
        except ValueError:
            self.note("A displayed value was too large to be sent whole; only its text was.")
            event["data"] = {key: data[key] for key in ("text/plain",) if key in data}
            self._control.send(event)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
