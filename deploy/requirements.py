"""`requirements.txt` of the Space, made from pyproject.toml, and the platform's own pip call, tried out."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from deploy.config import TOKENS, Target
from deploy.errors import DeployError, Exit

SDK = "gradio"
RESOLVE_TIMEOUT = 900.0
"""Seconds that pip gets to resolve the set."""


def direct(pyproject: Path) -> list[Requirement]:
    """The direct dependencies of the project, development extras left out."""
    data = tomllib.loads(pyproject.read_text())
    return [Requirement(line) for line in data["project"]["dependencies"]]


def sdk_version(pyproject: Path) -> str:
    """The Gradio version for the front matter: the lower bound of the range, which the suite runs on.

    The platform installs exactly this one, so `requirements.txt` must not name gradio at all.
    """
    gradio = next((r for r in direct(pyproject) if canonicalize_name(r.name) == SDK), None)
    low = [s.version for s in gradio.specifier if s.operator in (">=", "==", "~=")] if gradio else []
    if not low:
        raise DeployError(f"{pyproject} names no lowest gradio version; write it as gradio>=X.Y,<Z.", Exit.USAGE)
    return low[0] if low[0].count(".") == 2 else f"{low[0]}.0"


def requirements_txt(pyproject: Path, target: Target) -> str:
    """The text of the Space's `requirements.txt`: ranges, no gradio, the user's further packages last."""
    ours = [r for r in direct(pyproject) if canonicalize_name(r.name) != SDK]
    lines = [str(r) for r in ours]
    for text in target.extra_pip:
        try:
            extra = Requirement(text)
        except InvalidRequirement as error:
            raise DeployError(f"extra_pip: {text!r} is no requirement that pip reads ({error}).", Exit.USAGE) from None
        if canonicalize_name(extra.name) == SDK or extra.url:
            raise DeployError(f"extra_pip: {text!r} cannot be set here; give a package of the index.", Exit.USAGE)
        lines.append(str(extra))
    return "".join(f"{line}\n" for line in lines)


def platform_packages(sdk: str, *, zero_gpu: bool) -> list[str]:
    """What the builder adds to `-r requirements.txt` in its one pip call.

    As seen in build logs of 2026; on ZeroGPU the pin of `spaces` is the platform's and not known here.
    """
    packages = [f"gradio[oauth,mcp]=={sdk}", "uvicorn>=0.14.0", "websockets>=10.4", "spaces"]
    return [*packages, "torch<=2.13.0"] if zero_gpu else packages


@dataclass(frozen=True, slots=True)
class Resolved:
    """What pip would install: `packages` maps names to versions; `note` says where this differs from the Space."""

    packages: dict[str, str]
    note: str = ""


def resolve(
    requirements: str, *, sdk: str, python_version: str, zero_gpu: bool, withheld: Collection[str] = ()
) -> Resolved:
    """Resolve the platform's pip call without installing. Raises DeployError with pip's own reason.

    `withheld` are names of environment variables, besides those of tokens, that pip is not given.
    """
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    wanted = ".".join(python_version.split(".")[:2])
    # wheels alone: a source distribution is run to learn what it needs, and this machine has tokens
    foreign = ["--only-binary=:all:"]
    note = ""
    if here != wanted or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        foreign += ["--python-version", wanted, "--implementation", "cp"]
        for tag in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"):
            foreign += ["--platform", tag]
        note = f"resolved for Python {wanted} on Linux from Python {here} on {platform.system()}"
    with tempfile.TemporaryDirectory(prefix="deploy-resolve-") as folder:
        if note:
            # pip takes a foreign Python only together with a folder, which stays empty
            foreign += ["--target", str(Path(folder, "nothing"))]
        wishes, report = Path(folder, "requirements.txt"), Path(folder, "report.json")
        wishes.write_text(requirements)
        command = [
            sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet",
            "--disable-pip-version-check", "--report", str(report), *foreign, "-r", str(wishes),
            *platform_packages(sdk, zero_gpu=zero_gpu),
        ]  # fmt: skip
        try:
            run = subprocess.run(
                command,
                env={name: value for name, value in os.environ.items() if name not in {*TOKENS, *withheld}},
                capture_output=True,
                text=True,
                timeout=RESOLVE_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DeployError(
                f"pip did not resolve the packages within {RESOLVE_TIMEOUT:.0f} s; check the connection to the package "
                "index, or pass --no-resolve to leave it to the Space's builder.",
                Exit.BUILD,
            ) from None
        if run.returncode or not report.exists():
            errors = [line for line in run.stderr.splitlines() if line.startswith("ERROR")] or run.stderr.splitlines()
            raise DeployError(
                "The Space's builder could not install this set: "
                + " ".join(errors[-4:])
                + " Change the range in pyproject.toml or in extra_pip; nothing was uploaded. Source distributions are "
                "not tried here: leave a package without a wheel to the builder with --no-resolve.",
                Exit.BUILD,
            )
        found = json.loads(report.read_text())["install"]
    return Resolved({i["metadata"]["name"]: i["metadata"]["version"] for i in found}, note)
