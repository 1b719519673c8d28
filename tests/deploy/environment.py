"""The environment that the builder of a Space makes: an empty one, and the platform's own single pip call."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from deploy.requirements import platform_packages

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
        shutil.rmtree(place, ignore_errors=True)
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
