"""The files that go to the Space: an allow list, text only, the same tree giving the same hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from deploy.config import Target
from deploy.entry import entry
from deploy.errors import DeployError, Exit
from deploy.frontmatter import front_matter
from deploy.readme import readme
from deploy.requirements import requirements_txt, sdk_version

PACKAGES = ("executor", "space", "monitoring")
SUFFIXES = {".py", ".toml", ".mjs", ".sh", ".css", ".js", ".html", ".json", ".yml", ".svg", ".typed"}
"""What a package folder may hold for the Space; everything else stays at home."""

LIMIT = 2_000_000
"""Bytes that a bundle may have; the Hub asks for LFS from 10 MB a file on, and a build should be quick."""

BUILD_FILE = "BUILD"
PROJECT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Bundle:
    """Paths, as they will be in the Space's repository, and their contents; `build_id` is in `BUILD`, too."""

    files: Mapping[str, bytes]

    @property
    def build_id(self) -> str:
        """Twelve hex digits that stand for the content of all other files."""
        return self.files[BUILD_FILE].decode().strip()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(map(len, self.files.values()))

    @cached_property
    def oids(self) -> dict[str, str]:
        """Git's own name of each file's content, which the Hub lists for what it has."""
        return {path: git_oid(content) for path, content in self.files.items()}

    def write(self, folder: Path) -> None:
        """Lay the files down in `folder`, as the platform does with the repository."""
        for path, content in self.files.items():
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)


def collect(target: Target, *, project: Path = PROJECT) -> Bundle:
    """The bundle for `target` from the packages under `project`. Raises DeployError where it would not do."""
    pyproject = project / "pyproject.toml"
    sdk = sdk_version(pyproject)
    files = {path.relative_to(project).as_posix(): path.read_bytes() for path in _package_files(project)}
    files["README.md"] = (front_matter(target, sdk_version=sdk) + readme(target)).encode()
    files["requirements.txt"] = requirements_txt(pyproject, target).encode()
    files["app.py"] = entry(zero_gpu=target.zero_gpu).encode()
    files["LICENSE"] = (project / "LICENSE").read_bytes()
    if target.extra_apt:
        files["packages.txt"] = "".join(f"{name}\n" for name in target.extra_apt).encode()
    for path, content in files.items():
        _check_text(path, content)
    files[BUILD_FILE] = f"{_digest(files)}\n".encode()
    bundle = Bundle(dict(sorted(files.items())))
    if bundle.size > LIMIT:
        raise DeployError(
            f"The bundle has {bundle.size} bytes, over {LIMIT}: something large got into one of {', '.join(PACKAGES)}.",
            Exit.USAGE,
        )
    return bundle


def git_oid(content: bytes) -> str:
    """SHA-1 of a git blob, as the Hub's tree listing names files."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def _package_files(project: Path) -> Iterator[Path]:
    for package in PACKAGES:
        root = project / package
        if not (root / "__init__.py").is_file():
            raise DeployError(f"{root} is no package; run this from a whole clone.", Exit.USAGE)
        for path in sorted(root.rglob("*")):
            parts = path.relative_to(project).parts
            if path.is_symlink() or any(part.startswith(".") or part == "__pycache__" for part in parts):
                continue
            if path.is_file() and path.suffix in SUFFIXES:
                yield path


def _check_text(path: str, content: bytes) -> None:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise DeployError(f"{path} is not text; the Hub refuses binary files outside LFS. Take it out.", Exit.USAGE)


def _digest(files: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(f"{path}\0{len(files[path])}\0".encode())
        whole.update(files[path])
    return whole.hexdigest()[:12]
