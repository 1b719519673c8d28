"""From an empty Hub to a Space that answers LibreChat: the command line, the bundle in the platform's own environment,
a gateway that behaves like Hugging Face's, and back to the build before."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from deploy.bundle import PROJECT
from tests.deploy.conftest import WRITE
from tests.deploy.environment import SLOW
from tests.deploy.invariants import nothing_leaked
from tests.deploy.pod import HOST, Pod
from tests.e2e.gateway import TOKEN, gateway
from tests.hub import LocalHub
from tests.hub.api import User

KEY = "a-key-for-the-whole-way"


@pytest.fixture
def pod(python: Path, hub: LocalHub) -> Iterator[Pod]:
    """A pod that the local Hub builds into, behind a gateway that the Hub gives as the Space's address."""
    # beside the environment: the sandbox shows its guests another /tmp than ours
    folder = python.parents[2] / "pod"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pod = Pod(python, folder)
    loop = asyncio.new_event_loop()
    ready, stop = threading.Event(), asyncio.Event()
    urls: list[str] = []

    async def serve() -> None:
        async with gateway(pod.port, public_host=HOST) as proxy:
            urls.append(proxy.url)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert ready.wait(20)
    hub.users[TOKEN] = User("ada", "read", "pro", ("team",))
    hub.hosts["ada/code"] = urls[0]
    hub.builder = pod.build
    try:
        yield pod
    finally:
        pod.stop()
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        shutil.rmtree(folder)
        del hub.users[TOKEN]


@pytest.fixture
def clone(tree: Path) -> Path:
    """A clone of the project that stays as it is while the test runs."""
    shutil.copytree(PROJECT / "deploy", tree / "deploy", ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def deploy(hub: LocalHub, clone: Path, *command: str) -> tuple[int, str]:
    """Run `python -m deploy` as a user does; returns its exit code and all that it printed."""
    run = subprocess.run(
        [sys.executable, "-m", "deploy", *command],
        cwd=clone,
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))},
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": WRITE,
            "LIBRECHAT_HF_TOKEN": TOKEN,
            "ACCESS_KEY": KEY,
            "HF_HOME": str(clone / "no-login-here"),
        },
        capture_output=True,
        text=True,
        timeout=SLOW,
        check=False,
    )
    said = run.stdout + run.stderr
    assert not any(secret in said for secret in (WRITE, KEY)), "a secret was printed"
    assert TOKEN not in said
    return run.returncode, said


@pytest.mark.timeout(2 * SLOW)
def test_one_command_from_nothing_to_a_space_that_answers_and_back_again(hub: LocalHub, pod: Pod, clone: Path) -> None:
    settings = clone / "deploy.toml"
    settings.write_text('space = "ada/code"\nsecrets = ["ACCESS_KEY"]\n[variables]\nMAX_SESSIONS = 4\n')

    code, said = deploy(hub, clone, "apply")
    assert code == 0, said + pod.log.read_text(errors="replace")[-3000:]
    assert re.search(r"Resolving the packages.*\n  \d+ packages", said)
    for thing in ("a request without a token is refused", "healthy, and the right build"):
        assert f"ok   {thing}" in said
    for transport in ("sse", "streamable-http"):
        for thing in ("python", "javascript", "bash", "a plot comes back", "a file up and down", "sandbox", "cancel"):
            assert f"ok   {transport}: {thing}" in said
    first = re.search(r"build ([0-9a-f]{12}) answers", said)
    assert first is not None
    block = yaml.safe_load(said.split("# into librechat.yaml")[1].split("# into LibreChat's .env")[0])
    server = block["mcpServers"]["code"]
    assert server["type"] == "sse"
    assert server["url"] == f"{hub.hosts['ada/code']}/gradio_api/mcp/sse"
    assert server["headers"]["X-Access-Key"] == "${CODE_ACCESS_KEY}"
    nothing_leaked(hub, {"ACCESS_KEY": KEY}, (WRITE, TOKEN))

    hub.forget()
    code, said = deploy(hub, clone, "apply", "--no-resolve", "--no-smoke")
    assert code == 0, said
    assert "Nothing to change" in said
    assert hub.changes == []

    changed = clone / "space" / "librechat.py"
    changed.write_text(changed.read_text() + "# one changed line\n")
    code, said = deploy(hub, clone, "apply", "--no-resolve", "--transport", "streamable-http")
    assert code == 0, said + pod.log.read_text(errors="replace")[-3000:]
    (commit,) = hub.changes
    assert commit.committed.keys() == {"space/librechat.py", "BUILD"}
    assert pod.starts == ["app.py", "-c"], "once run as a script, once imported and launched"

    code, said = deploy(hub, clone, "doctor")
    assert code == 0, said
    assert "is well" in said

    hub.forget()
    code, said = deploy(hub, clone, "rollback")
    assert code == 0, said
    assert len(hub.changes) == 1
    assert f"build {first[1]} answers" in said
    assert hub.spaces["ada/code"].files["BUILD"].decode().strip() == first[1]
