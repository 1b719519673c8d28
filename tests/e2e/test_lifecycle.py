"""The Space starts fast, refuses bad settings with a sentence, stops cleanly, and works run and imported."""

from __future__ import annotations

import asyncio
import http.client
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from tests.e2e.running import ROOT, RunningSpace, client, environment, free_port, identity, text_of


async def works(space: RunningSpace) -> None:
    async with client(space, "sse", identity("u", "c")) as session:
        assert text_of(await session.call_tool("execute_python_code", {"code": "6 * 7"})).startswith("42\n")


def test_it_is_ready_soon_and_says_how_well_code_is_held(space: RunningSpace) -> None:
    assert space.ready_after < 30  # 10 s on a machine of its own
    health = httpx.get(f"{space.url}/healthz").json()
    assert health["status"] == "ok" and health["build"] and health["sandbox"]["level"] in ("full", "strong", "weak")


def test_page_health_and_metrics_stand_side_by_side(space: RunningSpace) -> None:
    page = httpx.get(f"{space.url}/")
    assert page.status_code == 200 and "gradio" in page.text
    assert httpx.get(f"{space.url}/metrics").status_code == 200


def test_a_connection_outlasts_the_clients_that_keep_it(space: RunningSpace) -> None:
    """httpx takes up a connection again for 5 s: a request that is sent just as the server closes it is lost."""
    kept = http.client.HTTPConnection(space.url.removeprefix("http://"), timeout=10)
    kept.connect()
    kept.auto_open = 0  # never a new one in its place
    try:
        for pause in (0.0, 6.5):
            time.sleep(pause)
            kept.request("GET", "/healthz")
            assert kept.getresponse().read()
    finally:
        kept.close()


async def call_until_cut_off(space: RunningSpace, command: str) -> None:
    async with client(space, "sse", identity("u", "c")) as session:
        await session.call_tool("execute_bash_command", {"command": command, "timeout": 600})


async def test_as_a_script_it_stops_cleanly_and_leaves_no_process(tmp_path: Path) -> None:
    state = tmp_path / "state"
    running = await asyncio.to_thread(
        RunningSpace.start, tmp_path, command=(str(ROOT / "space" / "app.py"),), cwd=tmp_path, WORK_DIR=str(state)
    )
    caller = asyncio.create_task(call_until_cut_off(running, "sleep 987654"))
    for _ in range(200):
        if await asyncio.to_thread(running.running, "987654"):
            break
        await asyncio.sleep(0.1)
    below = running.descendants()
    began = time.monotonic()
    code = await asyncio.to_thread(running.stop)
    took = time.monotonic() - began
    caller.cancel()
    await asyncio.gather(caller, return_exceptions=True)
    assert len(below) >= 4  # zygote, leader, bash, sleep
    assert code == 0, running.log.read_text()
    assert took < 15
    _, alive = psutil.wait_procs(below, timeout=10)
    assert alive == []
    assert not list((state / "sessions").glob("*"))


async def test_imported_and_launched_by_somebody_else_it_is_the_same_app(tmp_path: Path) -> None:
    entry = "import app; app.demo.launch(server_name='127.0.0.1')"
    (tmp_path / "app.py").write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\nfrom space.app import demo, main\n"
    )
    running = await asyncio.to_thread(
        RunningSpace.start, tmp_path, command=("-c", entry), cwd=tmp_path, GRADIO_SSR_MODE="true"
    )
    try:
        await works(running)
    finally:
        assert await asyncio.to_thread(running.stop) == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"EXECUTION_TIMEOUT": "soon"}, "EXECUTION_TIMEOUT='soon'"),
        ({"MAX_SESSIONS": "0"}, "MAX_SESSIONS=0"),
        ({"TOOLS": "execute_python_code,run_ruby"}, "run_ruby"),
        ({"STATE_DIR": "/dev/null/x"}, "STATE_DIR"),
        ({"WORK_DIR": "/dev/null/x"}, "WORK_DIR"),
    ],
)
def test_a_bad_setting_stops_the_start_with_one_sentence(settings: dict[str, str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "space.app"],
        cwd=ROOT,
        env=environment(PORT=str(free_port()), **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1


async def test_behind_an_access_key_everything_but_health_is_closed(tmp_path: Path) -> None:
    closed = await asyncio.to_thread(
        RunningSpace.start, tmp_path, ACCESS_KEY="open sesame", SPACE_HOST="owner-space.hf.space"
    )
    try:
        async with httpx.AsyncClient(base_url=closed.url) as http:
            for path in ("/", "/config", "/gradio_api/mcp/schema", "/gradio_api/info", "/metrics", "/theme.css"):
                assert (await http.get(path)).status_code == 401, path
            assert (await http.post("/gradio_api/mcp/", json={})).status_code == 401
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/", headers={"Host": "evil.example"})).status_code == 421
            cookie = await http.post("/login", data={"key": "open sesame"}, headers={"Host": "owner-space.hf.space"})
            assert cookie.status_code == 303
            assert (
                "Run"
                in (await http.get("/config", headers={"Cookie": cookie.headers["set-cookie"].split(";")[0]})).text
            )
        with pytest.raises(BaseExceptionGroup):
            async with client(closed, "sse"):
                raise AssertionError("connected without the key")
        headers = {"X-Access-Key": "open sesame", **identity("u", "c")}
        async with client(closed, "sse", headers) as session:
            assert text_of(await session.call_tool("execute_python_code", {"code": "1"})).startswith("1\n")
        assert "open sesame" not in closed.log.read_text()
    finally:
        await asyncio.to_thread(closed.stop)
