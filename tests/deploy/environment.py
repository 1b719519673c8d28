"""The environment that the builder of a Space makes: an empty one, and the platform's own single pip call.

`python -m tests.deploy.environment FOLDER` makes one with the test tools added, none of the builder's versions changed,
and prints its Python, so that the whole suite can run on exactly what a Space has.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from deploy.bundle import PROJECT, collect
from deploy.config import Target
from deploy.requirements import platform_packages, sdk_version

SPACE_UID = 1000
SLOW = 900


def interpreter(version: str) -> str:
    """A Python of this version that an ordinary user may run, too: one below root's own folder does not do."""
    name = f"python{version}"
    found = (shutil.which(name, path=path) for path in ("/usr/local/bin:/usr/bin", os.environ.get("PATH", "")))
    for path in (*filter(None, found), sys.executable):
        real = Path(path).resolve()
        if all(parent.stat().st_mode & 0o001 for parent in (real, *real.parents)) or os.geteuid():
            return path
    raise LookupError(f"no {name} that everybody may run")


def space_environment(cache: Path, requirements: str, *, sdk: str, version: str) -> Path:
    """The `python` of an environment with what the platform's pip call installs; kept by what goes into it."""
    packages = platform_packages(sdk, zero_gpu=False)
    base = interpreter(version)
    key = hashlib.sha256("\n".join((requirements, *packages, base)).encode()).hexdigest()[:16]
    place, done = cache / key, cache / key / "complete"
    if not done.exists():
        # each has most of a gigabyte: the ones for other requirements go
        for other in (path for path in (cache.iterdir() if cache.exists() else ()) if (path / "pyvenv.cfg").exists()):
            shutil.rmtree(other, ignore_errors=True)
        subprocess.run([base, "-m", "venv", place], check=True, timeout=120)
        wishes = place / "requirements.txt"
        wishes.write_text(requirements)
        subprocess.run(
            [place / "bin/python", "-m", "pip", "install", "-q", "-r", wishes, *packages], check=True, timeout=SLOW
        )
        done.touch()
    return place / "bin" / "python"


def as_space_user(command: list[str], folder: Path) -> list[str]:
    """`command` as uid 1000 where we are root, and `folder` given to that user; as ourselves otherwise."""
    if os.geteuid() != 0:
        return command
    for path in (folder, *folder.rglob("*")):
        os.chown(path, SPACE_UID, SPACE_UID)
    return ["setpriv", "--reuid", str(SPACE_UID), "--regid", str(SPACE_UID), "--clear-groups", *command]


def with_test_tools(cache: Path) -> Path:
    """The `python` of such an environment, with the project's development extras under the builder's versions."""
    target = Target()
    pyproject = PROJECT / "pyproject.toml"
    requirements = collect(target).files["requirements.txt"].decode()
    python = space_environment(cache, requirements, sdk=sdk_version(pyproject), version=target.python_version)
    tools = tomllib.loads(pyproject.read_text())["project"]["optional-dependencies"]["dev"]
    freeze = subprocess.run(
        [python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    constraints = python.parents[1] / "constraints.txt"
    if not constraints.exists():
        constraints.write_text(freeze)
    subprocess.run([python, "-m", "pip", "install", "-q", "-c", constraints, *tools], check=True, timeout=SLOW)
    return python


if __name__ == "__main__":
    sys.stdout.write(f"{with_test_tools(Path(sys.argv[1]).absolute())}\n")
