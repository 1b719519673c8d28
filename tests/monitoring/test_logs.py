"""Logs: one format for everybody, no secrets, no floods, no line that breaks what it reports on."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import pty
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn

import monitoring
from executor.settings import Settings
from monitoring.logs import LineHandler

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.usefixtures("clean_logging")


def configured(**settings: Any) -> tuple[LineHandler, io.StringIO]:
    out = io.StringIO()
    return monitoring.configure(Settings(**{"log_format": "json", **settings}), environ={}, stream=out), out


def lines(out: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.getvalue().splitlines()]


@pytest.fixture
def untouched_uvicorn() -> Iterator[None]:
    """uvicorn's logger as it is at a start: a server of another test may have set its level, for the whole process."""
    logger = logging.getLogger("uvicorn.error")
    before = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(before)


@pytest.mark.usefixtures("untouched_uvicorn")
def test_libraries_warnings_structlog_and_uncaught_exceptions_share_one_format() -> None:
    _, out = configured()
    logging.getLogger("gradio.routes").warning("slow %s", "queue")
    logging.getLogger("uvicorn.error").info("Started server process [%d]", 3)
    logging.getLogger("mcp.server.lowlevel").warning("odd message")
    structlog.get_logger().info("hello", number=1)
    warnings.warn("an old way", DeprecationWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    said = lines(out)
    assert [line["level"] for line in said] == ["warning", "info", "warning", "info", "warning", "critical"]
    assert all(list(line)[:3] == ["at", "level", "event"] for line in said)
    assert all(line["at"].endswith("Z") and len(line["at"]) == 24 for line in said)
    assert said[0]["event"] == "slow queue"
    assert said[0]["logger"] == "gradio.routes"
    assert said[3]["number"] == 1
    assert "an old way" in said[4]["event"]
    assert "ZeroDivisionError" in said[5]["exception"]


def test_what_libraries_say_of_every_request_is_left_out() -> None:
    _, out = configured()
    for name in ("mcp.server.lowlevel.server", "httpx", "sse_starlette.sse", "uvicorn.access"):
        logging.getLogger(name).info("a request")
    assert out.getvalue() == ""


async def test_a_uvicorn_server_made_later_logs_in_our_format() -> None:
    _, out = configured()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("the app is broken")

    server = uvicorn.Server(uvicorn.Config(app, port=0, lifespan="off", log_level="info"))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /x?key=secret-parameter HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    await reader.read()
    server.should_exit = True
    await serving
    writer.close()
    said = lines(out)
    assert any("Uvicorn running" in line["event"] for line in said)
    assert any("the app is broken" in line.get("exception", "") for line in said)
    assert "secret-parameter" not in out.getvalue()


BAIT = "bait-0123456789"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_secrets_are_printed_nowhere(log_format: str) -> None:
    _, out = configured(log_format=log_format, access_key=BAIT)
    log, std = structlog.get_logger(), logging.getLogger("somewhere")
    log.info("event with bait-0123456789")
    log.info("fields", authorization="another-one", nested={"a": [BAIT, {"cookie": "another-one"}]}, plain=BAIT)
    std.info("argument %s and %r", BAIT, {"Authorization": "Bearer another-one"})
    std.info("headers %s", [(b"authorization", b"Bearer another-one"), (b"x-access-key", BAIT.encode())])
    try:
        raise ValueError(f"could not open with {BAIT}")
    except ValueError:
        log.exception("failed")
        std.exception("failed")
    warnings.warn(f"a warning with {BAIT}", stacklevel=1)
    structlog.contextvars.bind_contextvars(token="another-one")
    log.info("bound")
    structlog.contextvars.clear_contextvars()
    text = out.getvalue()
    assert BAIT not in text
    assert "another-one" not in text
    assert text.count("[redacted]") >= 10


def test_secrets_of_the_environment_are_known_at_configure_time() -> None:
    out = io.StringIO()
    environ = {"HF_TOKEN": "from-the-environment", "PATH": "/usr/bin"}
    monitoring.configure(Settings(log_format="json"), environ=environ, stream=out)
    logging.getLogger("a").warning("environ is %s", environ)
    logging.getLogger("a").warning("found from-the-environment in /usr/bin")
    assert "from-the-environment" not in out.getvalue()
    assert out.getvalue().count("/usr/bin") == 2


def test_tracebacks_do_not_show_the_values_of_variables() -> None:
    _, out = configured()

    def broken() -> None:
        what_the_caller_sent = "-".join(["the", "guest's", "own", "words"])
        raise RuntimeError(f"broken after {len(what_the_caller_sent)} characters")

    try:
        broken()
    except RuntimeError:
        structlog.get_logger().exception("failed")
    assert "RuntimeError: broken after 21 characters" in lines(out)[0]["exception"]
    assert "the-guest's-own-words" not in out.getvalue()


class Unprintable:
    def __str__(self) -> str:
        raise ValueError("no text for this")

    __repr__ = __str__


class Closed(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError("closed")


def test_a_line_that_cannot_be_rendered_is_replaced_and_raises_nothing() -> None:
    handler, out = configured()
    structlog.get_logger().info("bad", value=Unprintable())
    logging.getLogger("a").info("%d", "not a number")
    logging.getLogger("a").info("%s", Unprintable())
    handler.say("info", {"event": Unprintable()})
    said = lines(out)
    assert [line["event"] for line in said] == ["a line could not be rendered"] * 4
    assert handler.unrenderable == 4
    monitoring.configure(Settings(log_format="json"), environ={}, stream=Closed()).say("info", {"event": "unheard"})


def test_lone_surrogates_do_not_break_a_real_file(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        monitoring.configure(Settings(log_format="json"), environ={}, stream=stream)
        logging.getLogger("a").warning("half a character: \ud800")
        logging.getLogger("a").warning("whole ones: äöü")
    said = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(said) == 2
    assert said[1]["event"] == "whole ones: äöü"


def test_a_repeated_line_is_counted_and_not_printed() -> None:
    handler, out = configured()
    for number in range(100):
        logging.getLogger("gradio").warning("client %d went away", number)
    logging.getLogger("gradio").warning("something else")
    handler.close()
    said = lines(out)
    assert [line["event"] for line in said[:-1]] == [f"client {n} went away" for n in range(5)] + ["something else"]
    assert said[-1]["event"] == "repeated"
    assert said[-1]["times"] == 95 == handler.held_back
    assert "client 0 went away" in said[-1]["of"]


def test_an_over_long_text_is_cut_in_its_middle() -> None:
    _, out = configured()
    logging.getLogger("a").warning("begin" + "x" * 100_000 + "end")
    assert len(out.getvalue()) < 11_000
    assert lines(out)[0]["event"].startswith("begin")
    assert lines(out)[0]["event"].endswith("end")


def test_configuring_again_prints_every_line_once() -> None:
    configured()
    _, out = configured()
    logging.getLogger("a").warning("once")
    assert len(lines(out)) == 1


def test_text_from_outside_cannot_forge_lines_on_a_terminal() -> None:
    _, out = configured(log_format="console")
    logging.getLogger("a").warning("innocent\n2026-01-01T00:00:00Z [info] forged \x1b[2J")
    assert len(out.getvalue().splitlines()) == 1
    assert "\x1b[2J" not in out.getvalue()


def test_auto_is_colour_on_a_terminal_and_json_elsewhere() -> None:
    program = (
        "import logging, monitoring; from executor.settings import Settings;"
        "monitoring.configure(Settings()); logging.getLogger('a').warning('hello')"
    )
    environ = {**os.environ, "TERM": "xterm", "PYTHONPATH": str(ROOT)}
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", program], stderr=theirs, env=environ, check=True, timeout=60)
    os.close(theirs)
    seen = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "\x1b[" in seen
    assert "hello" in seen
    piped = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environ, check=True, timeout=60)
    assert json.loads(piped.stderr)["event"] == "hello"
