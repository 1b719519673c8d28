"""A stand-in for the pod of a Space: runs a bundle as uid 1000, with a Space's variables, as its builder left it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.deploy.environment import as_space_user
from tests.e2e.running import free_port
from tests.hub.space import LocalSpace

HOST = "ada-code.hf.space"


class Pod:
    """Runs what was committed: uid 1000, a Space's environment variables, its own folder; one start at a time."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.port = free_port()
        self._python, self._folder = python, folder
        self._process: subprocess.Popen[bytes] | None = None
        self.starts: list[str] = []
        self.extra: dict[str, str] = {}
        self.log = folder / "log"

    def build(self, space: LocalSpace) -> None:
        """Put the files into a new folder and start them: as a script the first time, then imported and launched."""
        self.stop()
        folder = self._folder / f"build-{len(self.starts)}"
        for path, content in space.files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        way = ["app.py"] if len(self.starts) % 2 == 0 else ["-c", "import app; app.demo.launch()"]
        self.starts.append(way[0])
        secrets = {key: kept["value"] for key, kept in (space.secrets | space.variables).items()}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                as_space_user([str(self._python), *way], folder),
                cwd=folder,
                env={
                    "PATH": f"{self._python.parent}:/usr/local/bin:/usr/bin:/bin",
                    "HOME": str(folder),
                    "SYSTEM": "spaces",
                    "SPACE_ID": space.id,
                    "SPACE_HOST": HOST,
                    "SPACE_AUTHOR_NAME": "ada",
                    "SPACE_REPO_NAME": "code",
                    "CPU_CORES": "2",
                    "MEMORY": "16Gi",
                    "GRADIO_SSR_MODE": "true",
                    "PORT": str(self.port),
                    **secrets,
                    **self.extra,
                },
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End what runs."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None
