"""Logs: everything that this process has to say, as one kind of line, without secrets, without floods."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor

from executor.settings import Settings
from monitoring.flood import Flood, Repeated
from monitoring.redaction import Redactor

_LONGEST = 10_000
"""Characters kept of one text of a line; the middle of a longer one is cut."""
_FOREIGN_LIMIT = 5
"""Equal lines a minute printed of a library."""
# Libraries that narrate every request at INFO; what happened in it is an event of ours already.
_TOO_CHATTY = ("mcp", "httpx", "httpx2", "httpcore", "sse_starlette", "uvicorn.access", "matplotlib", "PIL", "asyncio")


def configure(
    settings: Settings, *, environ: Mapping[str, str] | None = None, stream: TextIO | None = None
) -> LineHandler:
    """Send structlog, the standard library's logging, uvicorn, Gradio, the MCP SDK, warnings and uncaught exceptions to
    `stream` (default: standard error) as one kind of line: JSON, or colour for a terminal (`LOG_FORMAT`).

    Call it first, before anything logs; calling it again replaces the former configuration. `environ` (default: the
    process's own) is looked through for values that must never be printed.
    """
    out = stream if stream is not None else sys.stderr
    redactor = Redactor.of(settings, os.environ if environ is None else environ)
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not out.isatty())
    handler = LineHandler(out, redactor, _renderers(as_json=as_json, colors=out.isatty()))
    root = logging.getLogger()
    for old in [h for h in root.handlers if isinstance(h, (LineHandler, logging.StreamHandler))]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in _TOO_CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    _take_over_uvicorn()
    logging.captureWarnings(True)
    _take_over_uncaught()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    return handler


class LineHandler(logging.Handler):
    """Writes lines, counts them in `lines` by level, and holds repeated ones back (`held_back`)."""

    def __init__(self, stream: TextIO, redactor: Redactor, renderers: list[Processor]) -> None:
        super().__init__()
        self.lines: Counter[str] = Counter()
        self.held_back = 0
        self.unrenderable = 0
        self._stream = stream
        self._redactor = redactor
        self._renderers = renderers
        self._flood = Flood()
        self.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.add_logger_name],
                # tracebacks without the values of local variables: those hold whatever the caller sent
                processors=[structlog.processors.format_exc_info, self._finish, *renderers],
                keep_exc_info=False,
                keep_stack_info=False,
            )
        )

    def emit(self, record: logging.LogRecord) -> None:
        """Print what somebody logged unless it repeats itself; whatever is wrong with it, nothing is raised."""
        try:
            self._tell_repeated(self._flood.ended())
            if self._flood.admit(*_flood_key(record)):
                self._write(record.levelname.lower(), self.format(record))
            else:
                self.held_back += 1
        except Exception as error:
            # a line that cannot be rendered must not take down what it reports on
            self._write_instead(error, record.name)

    def say(self, level: str, line: EventDict, *, flood: tuple[Hashable, str, int] | None = None) -> None:
        """Print one of our own lines: the same line as through logging at a third of its cost.

        `flood` is (key, what it is, lines a minute that are printed), None for a line that is always printed.
        """
        with self._held():
            try:
                self._tell_repeated(self._flood.ended())
                if flood is None or self._flood.admit(*flood):
                    self._write(level, self._rendered({"level": level, **line}))
                else:
                    self.held_back += 1
            except Exception as error:
                self._write_instead(error, "monitoring")

    def sweep(self) -> None:
        """Tell what was held back in windows that are over; to be called every now and then."""
        with self._held():
            self._tell_repeated(self._flood.ended())

    def close(self) -> None:
        """Tell what was held back so far."""
        try:
            with self._held():
                self._tell_repeated(self._flood.ended(everything=True))
        except Exception:
            self.unrenderable += 1
        super().close()

    def _held(self) -> AbstractContextManager[Any]:
        return self.lock if self.lock is not None else nullcontext()

    def _tell_repeated(self, ended: list[Repeated]) -> None:
        for label, times, seconds in ended:
            line = {"event": "repeated", "of": label, "times": times, "within_seconds": round(seconds)}
            self._write("warning", self._rendered({"level": "warning", **line}))

    def _rendered(self, line: EventDict) -> str:
        rendered: Any = self._finish(None, "", line)
        for renderer in self._renderers:
            rendered = renderer(None, "", rendered)
        return str(rendered)

    def _finish(self, _: Any, __: str, event_dict: EventDict) -> EventDict:
        """The line as it will be printed: time, level and event first, nothing over-long, nothing secret."""
        record = event_dict.pop("_record", None)
        event_dict.pop("_from_structlog", None)
        line = {
            "at": event_dict.pop("at", None) or timestamp(record.created if record else time.time()),
            "level": event_dict.pop("level", "info"),
            "event": event_dict.pop("event", ""),
            **event_dict,
        }
        for key, value in line.items():
            if isinstance(value, str) and len(value) > _LONGEST:
                half = _LONGEST // 2
                line[key] = f"{value[:half]} […{len(value) - 2 * half} characters cut…] {value[-half:]}"
        return self._redactor.line(line)

    def _write(self, level: str, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()
        self.lines[level] += 1

    def _write_instead(self, error: Exception, logger: str) -> None:
        self.unrenderable += 1
        line = {"at": timestamp(time.time()), "level": "error", "event": "a line could not be rendered"}
        try:
            self._write("error", _to_json({**line, "logger": logger, "error": type(error).__name__}))
        except Exception:
            # standard error itself is closed or full: there is nobody left to tell
            self.unrenderable += 1


def timestamp(at: float) -> str:
    """Seconds since 1970 as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _renderers(*, as_json: bool, colors: bool) -> list[Processor]:
    if as_json:
        return [lambda _, __, event_dict: _to_json(event_dict)]
    return [
        _printable,
        structlog.dev.ConsoleRenderer(
            colors=colors,
            timestamp_key="at",
            pad_event_to=14,
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]


_to_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=str).encode


def _printable(_: Any, __: str, event_dict: EventDict) -> EventDict:
    """Control characters escaped: on a terminal a foreign text could otherwise forge lines or move the cursor."""
    for key, value in event_dict.items():
        if isinstance(value, str) and not value.isprintable():
            kept = "\n\t" if key == "exception" else ""
            event_dict[key] = "".join(
                c if c.isprintable() or c in kept else c.encode("unicode_escape").decode() for c in value
            )
    return event_dict


def _flood_key(record: logging.LogRecord) -> tuple[Hashable, str, int]:
    if isinstance(record.msg, dict):
        event = f"{record.msg.get('event', '')}"[:200]
        return (record.name, record.levelno, event), event, _FOREIGN_LIMIT
    message = record.getMessage()
    # where a template is given, its filled-in values do not make another line of it; neither do numbers
    pattern = record.msg if isinstance(record.msg, str) and record.args and record.msg != "%s" else message
    pattern = re.sub(r"\d+", "0", str(pattern))[:200]
    kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
    return (record.name, record.levelno, pattern, kind), f"{record.name}: {message[:200]}", _FOREIGN_LIMIT


def _take_over_uvicorn() -> None:
    """Uvicorn configures logging when a server is made, which may be after us: change what it will configure."""
    import uvicorn.config  # noqa: PLC0415 - only servers have it loaded

    names = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")
    uvicorn.config.LOGGING_CONFIG.clear()
    uvicorn.config.LOGGING_CONFIG.update(
        version=1,
        disable_existing_loggers=False,
        loggers={name: {"handlers": [], "propagate": True} for name in names},
    )
    for name in names:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True


def _take_over_uncaught() -> None:
    def report(kind: type[BaseException], value: BaseException | None, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, value or kind(), trace)
            return
        logging.getLogger("uncaught").critical("uncaught exception", exc_info=(kind, value or kind(), trace))

    def report_thread(args: threading.ExceptHookArgs) -> None:
        if args.exc_type is not SystemExit:
            report(args.exc_type, args.exc_value, args.exc_traceback)

    sys.excepthook = report
    threading.excepthook = report_thread
