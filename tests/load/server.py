"""The server under load: a process that is started, killed, started again on the same state, and measured."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from tests.e2e.running import ROOT, environment, free_port

START_SECONDS = 90.0
STOP_SECONDS = 40.0
GONE_SECONDS = 15.0
"""For the processes of a killed server to be gone, too."""
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sample:
    """What the server and its children hold: proportional set size in MiB (smaps_rollup), counts."""

    at: float
    server_mib: float
    children_mib: float
    processes: int
    descriptors: int

    @property
    def all_mib(self) -> float:
        """The server and its children."""
        return self.server_mib + self.children_mib


class Server:
    """One server on one port and one state folder, through as many lives as it takes."""

    def __init__(self, folder: Path, *, max_sessions: int, connections: int) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        self.journal = folder / "cells.jsonl"
        """The leaders' own account of what they ran."""
        self.up = asyncio.Event()
        self.down = asyncio.Event()
        self.life = 0
        self.killed_at: list[float] = []
        """Moments of `time.monotonic`."""
        self.late_to_end = 0
        """Processes that were still there `GONE_SECONDS` after the server had been killed."""
        self._process: subprocess.Popen[bytes] | None = None
        self._environment = environment(
            PORT=str(port),
            PUBLIC_BASE_URL=self.url,
            STATE_DIR=str(folder / "state"),
            MAX_SESSIONS=str(max_sessions),
            MAX_CONNECTIONS=str(connections),
            SESSION_MEMORY_MB="384",
            CELL_JOURNAL=str(self.journal),
            SOFT_WAIT="2",
            GRADIO_TEMP_DIR=str(folder / "gradio"),
        )

    async def start(self) -> float:
        """Start it and wait until it is well; returns the seconds that it took."""
        began = time.monotonic()
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "space.app"],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        async with httpx.AsyncClient(timeout=5) as http:
            while time.monotonic() - began < START_SECONDS:
                if self._process.poll() is not None:
                    break
                with contextlib.suppress(httpx.HTTPError):
                    if (await http.get(f"{self.url}/healthz")).status_code == 200:
                        self.life += 1
                        self.down.clear()
                        self.up.set()
                        return time.monotonic() - began
                await asyncio.sleep(0.1)
        tail = self.log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"The server did not start within {START_SECONDS:g} s. Its log ends:\n{tail}")

    async def kill(self) -> None:
        """SIGKILL, as the kernel does it to whoever takes too much memory; its children must end by themselves."""
        assert self._process is not None
        children = psutil.Process(self._process.pid).children(recursive=True)
        self.up.clear()
        self.killed_at.append(time.monotonic())
        self._process.kill()
        self.down.set()
        await asyncio.to_thread(self._process.wait)
        deadline = time.monotonic() + GONE_SECONDS
        while (left := [child for child in children if _lives(child)]) and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        self.late_to_end += len(left)
        for child in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()

    async def stop(self) -> int:
        """SIGTERM, and the exit code; SIGKILL and -9 where that does not help. Idempotent."""
        process = self._process
        if process is None:
            return 0
        self.up.clear()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            return await asyncio.to_thread(process.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            return await asyncio.to_thread(process.wait)

    def sample(self) -> Sample | None:
        """What it holds now; None where it does not run."""
        if self._process is None or self._process.poll() is not None:
            return None
        try:
            server = psutil.Process(self._process.pid)
            children = server.children(recursive=True)
            return Sample(
                at=time.monotonic(),
                server_mib=_pss(server.pid),
                children_mib=sum(_pss(child.pid) for child in children),
                processes=1 + len(children),
                descriptors=server.num_fds(),
            )
        except psutil.NoSuchProcess:
            return None


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _pss(pid: int) -> float:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
