"""ZeroGPU's demands, met with its own `spaces` package: one marked function, Gradio's launch, no GPU asked for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from deploy.bundle import collect
from deploy.config import Target
from deploy.probe import healthz
from tests.deploy.environment import SLOW
from tests.deploy.pod import Pod
from tests.hub.space import Commit, LocalSpace


@pytest.fixture
def device() -> Iterator[tuple[str, list[str]]]:
    """What a ZeroGPU Space reports to and asks GPUs of, with all that it was asked."""
    asked: list[str] = []

    class Device(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Device)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.timeout(2 * SLOW)
def test_a_zero_gpu_space_finds_its_marked_function_and_never_asks_for_a_gpu(python: Path, device) -> None:
    url, asked = device
    bundle = collect(Target(space="ada/zero", hardware="zero-a10g"))
    folder = python.parents[2] / "zero-pod"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    pod = Pod(python, folder)
    pod.extra = {"SPACES_ZERO_GPU": "true", "SPACES_ZERO_DEVICE_API_URL": url}
    try:
        pod.build(LocalSpace("ada/zero", "gradio", True, "", commits=[Commit("all", dict(bundle.files))]))
        deadline = time.monotonic() + 90
        while not (health := healthz(f"http://127.0.0.1:{pod.port}", None)).ok:
            assert time.monotonic() < deadline, pod.log.read_text(errors="replace")[-3000:]
            time.sleep(0.3)
        assert health.build_id == bundle.build_id
        assert asked == ["/startup-report"], "reported once, which needs a marked function; no GPU was asked for"
    finally:
        pod.stop()
        shutil.rmtree(folder)
