"""Pip: Python packages as ready-built wheels, unpacked and never run, beside what the interpreter has already."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import re
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from executor.packages.client import FetchFailed, Job, Said, environment, run
from executor.packages.report import Ecosystem, Package
from executor.packages.requests import Unusable, Wanted

# the index and the way to it; nothing that changes what is installed or where to
_OWN = frozenset(
    f"PIP_{name}"
    for name in (
        *("INDEX_URL", "EXTRA_INDEX_URL", "FIND_LINKS", "NO_INDEX", "TRUSTED_HOST", "CERT", "CLIENT_CERT", "PROXY"),
        *("DEFAULT_TIMEOUT", "TIMEOUT", "CONFIG_FILE", "KEYRING_PROVIDER", "USE_DEPRECATED", "USE_FEATURE"),
    )
)

_UNITS = {"bytes": 1e-6, "kb": 1e-3, "mb": 1.0, "gb": 1e3}
_SIZE = re.compile(r"(?:Downloading|Using cached) (?:\S*/)?(\S+\.whl) \(([\d.]+) (bytes|kB|MB|GB)\)", re.IGNORECASE)
_UNREACHABLE = (
    r"Retrying \(Retry|Max retries|ConnectionError|NameResolutionError|Could not fetch URL|Connection refused"
)
_VERSION = r"[\w.!+-]+"

_ORDINARY = frozenset({"bin", "doc", "docs", "examples", "scripts", "share", "test", "tests", "include", "lib"})
"""Folders at the top that packages drop by carelessness; no one imports them."""


class Pip:
    """Implements `client.Client` with the pip of our own interpreter."""

    language: Ecosystem = "python"

    @cached_property
    def _installed(self) -> dict[str, str]:
        """Name to version of what this interpreter, so every session, can import."""
        found: dict[str, str] = {}
        for distribution in metadata.distributions():
            if name := distribution.metadata["Name"]:
                found.setdefault(canonicalize_name(name), distribution.version)
        return found

    def ready(self, wanted: Wanted) -> Package | None:
        """Whether the interpreter has it."""
        version = self._installed.get(wanted.name)
        if version is None:
            return None
        if wanted.specifier is not None and not wanted.specifier.contains(version, prereleases=True):
            raise Unusable(
                f"version {version} belongs to the interpreter and cannot be exchanged; leave the version out"
            )
        # extras are further packages, which may be missing
        return None if wanted.extras else Package(wanted.name, version, requested=True)

    def own(self, name: str) -> str | None:
        """What the interpreter has."""
        return self._installed.get(name)

    async def fetch(self, wanted: Sequence[Wanted], job: Job) -> list[Package]:
        """Find out what is missing, then unpack just that."""
        job.tree.mkdir()
        pins = await self._resolve(wanted, job)
        if not pins:
            return []
        lines = [f"{name}=={version}{f' --hash=sha256:{digest}' if digest else ''}\n" for name, version, digest in pins]
        if not all(digest for *_, digest in pins):
            lines = [f"{name}=={version}\n" for name, version, _ in pins]
        listed = job.stage / "pins.txt"
        listed.write_text("".join(lines))
        said = await self._pip(job, "--no-deps", "--no-compile", "--target", str(job.tree), "-r", str(listed))
        if said.code != 0:
            raise self._unreachable(said) or said.unknown("pip")
        requested = {want.name for want in wanted}
        await asyncio.to_thread(_must_not_hide, job.tree)
        return [Package(name, version, requested=name in requested) for name, version, _ in pins]

    async def _resolve(self, wanted: Sequence[Wanted], job: Job) -> list[tuple[str, str, str]]:
        """(name, version, SHA-256 or empty) of all that the interpreter lacks."""
        constraints, report = job.stage / "constraints.txt", job.stage / "report.json"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in sorted(self._installed.items())))
        arguments = ("--dry-run", "--report", str(report), "--constraint", str(constraints))
        said = await self._pip(job, *arguments, "--", *(want.text for want in wanted))
        if said.code != 0:
            raise await self._explain(said, wanted, job)
        found = json.loads(report.read_text())["install"]
        if any(item["is_direct"] for item in found):
            raise FetchFailed("it needs a package that lies outside of the package index")
        return [
            (
                canonicalize_name(item["metadata"]["name"]),
                item["metadata"]["version"],
                _sha256(item["download_info"]),
            )
            for item in found
        ]

    async def _pip(self, job: Job, *arguments: str) -> Said:
        total = 0.0

        def on_line(line: str) -> None:
            nonlocal total
            if match := re.match(r"Collecting ([\w.-]+)", line):
                job.progress(f"Looking up {match[1]}.")
            elif match := _SIZE.search(line):
                size = float(match[2]) * _UNITS[match[3].lower()]
                name, version = _wheel(match[1])
                total += size
                job.progress(f"Downloading {name} {version} ({size:.1f} MB).")
                if size > job.max_mb:
                    raise job.too_large(name, version, size)
                if total > job.max_mb:
                    raise job.too_large()
            elif line.startswith("Installing collected"):
                job.progress("Unpacking.")

        env = environment(job, lambda name: name in _OWN) | {
            "PIP_CACHE_DIR": str(job.downloads / "pip"),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-P", "-m", "pip", "install", "--only-binary", ":all:", "--no-input"]
        return await run(
            [*command, "--retries", "2", "--progress-bar", "off", "--no-color", *arguments],
            env=env,
            job=job,
            on_line=on_line,
        )

    # What went wrong

    async def _explain(self, said: Said, wanted: Sequence[Wanted], job: Job) -> FetchFailed:
        if error := self._unreachable(said):
            return error
        if said.find(r"No module named pip"):
            return FetchFailed("the server's Python has no pip; tell its operator", detail="python -m pip: no pip")
        if said.find(r"ResolutionImpossible|conflicting dependencies"):
            return FetchFailed(_conflict(said))
        if (match := said.find(r"No matching distribution found for ([\w.-]+)")) is None:
            return said.unknown("pip")
        name = canonicalize_name(match[1])
        reason = await self._why_none(name, said, job)
        asked = {want.name for want in wanted}
        # `Could not find a version that satisfies the requirement a<7 (from b==1) (from versions: ...)`
        needing = said.all(r"satisfies the requirement .*?\(from (?!versions:)([\w.-]+)")
        if needing:
            blamed = {canonicalize_name(match[1]) for match in needing}
            return FetchFailed(f"it needs {name}: {reason}", culprits=sorted(blamed & asked))
        return FetchFailed(reason, culprits=[name] if name in asked else ())

    async def _why_none(self, name: str, said: Said, job: Job) -> str:
        """Why no version of `name` can be taken: there is none, none of that number, or none that is ready-built."""
        versions = said.find(rf"\(from versions: ((?:{_VERSION}, )*{_VERSION})\)")
        if versions and versions[1] != "none":
            newest = versions[1].split(", ")[-5:]
            return f"there is no such version of {name}; the newest are {', '.join(newest)}"
        job.progress(f"Looking for other forms of {name}.")
        env = environment(job, lambda key: key in _OWN) | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        listed = await run([sys.executable, "-P", "-m", "pip", "index", "versions", name], env=env, job=job)
        python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
        if listed.code == 0:
            return (
                f"{name} is only there as source that has to be built, which is not done here: it has no wheel for "
                f"{python} on Linux; look for another package that does the same"
            )
        if said.find(r"require a different python version"):
            return f"{name} has no version for {python}"
        return f"there is no package called {name}; check the spelling"

    def _unreachable(self, said: Said) -> FetchFailed | None:
        if said.find(_UNREACHABLE):
            return FetchFailed("the package index cannot be reached from the server; try again later")
        return None


def _must_not_hide(tree: Path) -> None:
    """Raises FetchFailed where a module of the tree would be imported instead of one of the interpreter's."""
    for entry in tree.iterdir():
        name = entry.name.split(".")[0]
        importable = (entry / "__init__.py").exists() if entry.is_dir() else entry.suffix in (".py", ".so")
        if not importable or not name.isidentifier() or name in _ORDINARY:
            continue
        if name in sys.stdlib_module_names or _has(name):
            raise FetchFailed(f"it brings a module {name} that would hide the interpreter's own")


def _has(name: str) -> bool:
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return False
    # a namespace, which has no file, is shared by all who put something into it
    return spec is not None and spec.origin is not None


def _sha256(info: dict[str, Any]) -> str:
    digest = str(info.get("archive_info", {}).get("hashes", {}).get("sha256", ""))
    return digest if re.fullmatch(r"[0-9a-f]{64}", digest) else ""


def _wheel(filename: str) -> tuple[str, str]:
    """(name, version) of a wheel."""
    try:
        name, version, *_ = parse_wheel_filename(filename)
    except InvalidWheelFilename:
        return "a package", ""
    return name, str(version)


def _conflict(said: Said) -> str:
    """The conflict in names and versions."""
    requirement = r"[\w.-]+(?:\[[\w,.-]*\])?[\w.<>=!~,* ]*"
    wants = [
        f"{m[1]} {m[2]} needs {m[3].strip()}"
        for m in said.all(rf"^\s+([\w.-]+)(?:\[[\w,.-]*\])? ({_VERSION}) depends on ({requirement})$")
    ]
    has = [f"the interpreter has {m[1]}" for m in said.all(rf"\(constraint\) ([\w.-]+=={_VERSION})$")]
    asked = [f"{m[1].strip()} was asked for" for m in said.all(rf"The user requested ({requirement})$")]
    facts = list(dict.fromkeys([*wants[:4], *has[:3], *asked[:4]]))
    return "its requirements conflict" + (f": {'; '.join(facts)}" if facts else "")
