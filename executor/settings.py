"""Every limit and switch, once, with its unit, range and default; read from the environment."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_type_hints

from executor.errors import SettingsError

SecurityPolicy = Literal["auto", "strict", "standard", "off"]
UiResources = Literal["off", "figures", "all"]
LogFormat = Literal["auto", "json", "console"]

SECRET = "secret"
"""Metadata key of settings whose value must never be printed."""


def setting(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, secret: bool = False
) -> Any:
    """A dataclass field that knows its own documentation, its range (inclusive) and whether it may be printed."""
    return field(default=default, metadata={"help": help, "low": low, "high": high, SECRET: secret})


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings. A field `park_after` is the environment variable `PARK_AFTER`.

    Booleans take 0/1, true/false, yes/no, on/off; lists are separated by commas; an empty variable counts as not set.
    """

    # What a call may take
    execution_timeout: float = setting(30.0, "seconds for a call that names no timeout", low=1, high=86_400)
    max_execution_timeout: float = setting(600.0, "longest timeout a call may ask for, seconds", low=1, high=86_400)
    soft_wait: float = setting(45.0, "seconds after which a call answers `running`", low=0.05, high=86_400)
    interrupt_grace: float = setting(
        1.0, "seconds between the soft stop, which keeps the variables, and the hard one", low=0, high=60
    )
    max_output_length: int = setting(10_000, "characters kept of each output stream", low=200, high=10_000_000)
    max_log_bytes: int = setting(10_000_000, "bytes of an over-long stream kept as a file", low=0, high=10**10)
    max_code_bytes: int = setting(1_000_000, "bytes of code in one call, as UTF-8", low=1, high=100_000_000)
    max_result_chars: int = setting(
        140_000, "characters of text and base64 in one answer to the model", low=2_000, high=4_000_000
    )
    ui_resources: UiResources = setting(
        "figures",
        "what goes out as a ui:// view, too: off, figures (interactive ones), all (tables, downloads)",
    )
    show_variables: bool = setting(True, "name the variables that a Python cell made or changed")
    max_outputs: int = setting(100, "displayed values kept of one execution", low=1, high=10_000)

    # Sessions
    max_sessions: int = setting(10, "live sessions at once", low=1, high=10_000)
    spare_sessions: int = setting(2, "sessions kept ready ahead of need; each costs about 9 MiB", low=0, high=100)
    snapshots: bool = setting(True, "save sessions, so that they are parked instead of ended, and outlive restarts")
    snapshot_after: float = setting(2.0, "idle seconds after which a changed session is saved", low=0.05, high=3600)
    snapshot_every: float = setting(
        5.0, "seconds after which a session that is never idle is saved between two cells", low=0.1, high=3600
    )
    snapshot_max_mb: int = setting(256, "state of one language in a snapshot, MiB; of more, nothing is kept", low=1)
    park_after: float = setting(900.0, "idle seconds after which a session is parked", low=1, high=31_536_000)
    retention_days: float = setting(30.0, "days for which a session that nobody uses is kept", low=0.0001, high=36_500)
    store_max_mb: int = setting(10_000, "snapshots of all sessions, MiB; over it the oldest go", low=10)
    history_entries: int = setting(100, "executions remembered per session", low=0, high=100_000)
    single_user: bool = setting(False, "callers without identity headers all share one owner")

    # What one owner may use, so that nobody starves the others; callers without identity headers have no such caps
    owner_sessions: int = setting(200, "sessions of one user, live and parked; 0: no cap", low=0, high=1_000_000)
    owner_memory_mb: int = setting(
        4096, "memory of one user's live sessions, MiB, over which no further one opens; 0: no cap", low=0
    )
    owner_disk_mb: int = setting(
        4096, "folders and snapshots of one user, MiB, over which nothing is added; 0: no cap", low=0
    )
    owner_concurrent: int = setting(
        4,
        "cells of one user under way at once; as many sessions at work, or half the places if more; 0: no cap",
        low=0,
        high=10_000,
    )
    owner_calls_per_minute: int = setting(
        240,
        "calls of one user in a minute that run code, add files or install packages, half of them at once; 0: no cap",
        low=0,
        high=1_000_000,
    )
    max_concurrent: int = setting(
        -1,
        "cells under way at once, and as many again that run for over 10 s; -1: four a core, 0: no cap",
        low=-1,
        high=10_000,
    )
    queue_wait: float = setting(30.0, "seconds that a call waits for its turn on a full machine", low=0, high=3600)
    max_connections: int = setting(2_500, "MCP connections open at once over SSE", low=1, high=1_000_000)

    # What one session may use
    session_memory_mb: int = setting(1024, "memory of all processes of a session, MiB", low=64, high=1_048_576)
    session_disk_mb: int = setting(512, "size of the session's folder, MiB", low=1, high=1_048_576)
    session_files: int = setting(20_000, "files and folders in the session's folder", low=10, high=10_000_000)
    session_processes: int = setting(64, "processes of a session", low=4, high=10_000)
    session_threads: int = setting(256, "threads of a session, over all its processes", low=16, high=100_000)
    session_open_files: int = setting(1024, "open files of one process", low=64, high=1_048_576)
    session_cpu_seconds: int = setting(3600, "CPU seconds of one process", low=1, high=31_536_000)
    total_memory_mb: int = setting(
        0, "memory of all sessions together, MiB; 0: three quarters of the container's", low=0
    )
    max_upload_mb: int = setting(256, "largest file taken in or given out, MiB", low=1, high=1_048_576)
    allow_url_upload: bool = setting(False, "fetch files from public addresses that callers name")

    # Packages that a session may install
    packages: bool = setting(True, "let sessions install Python and JavaScript packages, fetched by the server")
    package_allow: tuple[str, ...] = setting((), "the packages that may be asked for, `*` as in file names; empty: all")
    package_deny: tuple[str, ...] = setting((), "packages that may not be installed, nor come along with others")
    package_max_mb: int = setting(300, "packages of a session and language, unpacked, MB", low=1, high=1_000_000)
    package_max_count: int = setting(50, "packages named in a session for one language", low=1, high=10_000)
    package_timeout: float = setting(120.0, "seconds for fetching what one call asks for", low=1, high=86_400)
    package_cache_mb: int = setting(
        2_000, "fetched packages kept for all sessions, MB, and as much again of downloads", low=0, high=10_000_000
    )

    # Security
    security_policy: SecurityPolicy = setting("auto", "how strict the static check is")
    allow_weak_sandbox: bool = setting(False, "execute even where the kernel cannot hold hostile code")
    access_key: str = setting("", "second key in front of everything but /healthz and signed links", secret=True)
    admin_key: str = setting("", "key of the operator's tab; without one the tab is off", secret=True)
    metrics_key: str = setting("", "key for /metrics as parameter `key`, where ACCESS_KEY is set", secret=True)
    link_ttl: float = setting(86_400.0, "seconds for which a signed link works, at most", low=1, high=31_536_000)
    link_key: str = setting("", "key of signed links; empty: a new one with every start", secret=True)
    allowed_hosts: tuple[str, ...] = setting((), "further host names that requests may be addressed to")

    # Where it runs
    public_base_url: str = setting("", "address that people reach the Space under, for links")
    space_host: str = setting("", "set by Hugging Face: host name of the Space")
    space_id: str = setting("", "set by Hugging Face: owner/name of the Space")
    state_dir: str = setting(
        "",
        "folder that snapshots are kept in; empty: `~/.local/state/code-interpreter`, on a Space "
        "`/data/code-interpreter`; where that cannot be written, and for a bare Executor, one in the folder for live "
        "sessions, lost with the server unless WORK_DIR is set",
    )
    cell_journal: str = setting(
        "", "file to which every cell that is handed to an interpreter adds a JSON line; empty: none"
    )
    work_dir: str = setting("", "folder for live sessions; empty: a private one in the temporary folder")
    host: str = setting("", "address to listen on; empty: 127.0.0.1, on a Space 0.0.0.0")
    port: int = setting(7860, "port to listen on", low=0, high=65_535)
    tools: tuple[str, ...] = setting((), "names of the MCP tools to offer; empty: all")

    # Operators
    log_format: LogFormat = setting("auto", "json, console, or auto: console on a terminal")
    log_code: bool = setting(False, "write executed code to the log")
    log_salt: str = setting("", "salt of the hashes that stand for owners and sessions in the log", secret=True)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Settings from environment variables, with `overrides` by field name on top.

        Raises SettingsError naming the variable, its value and what is allowed.
        """
        source = os.environ if environ is None else environ
        hints = get_type_hints(cls)
        values: dict[str, Any] = {}
        for f in fields(cls):
            text = source.get(f.name.upper(), "").strip()
            if text:
                values[f.name] = _parse(f, hints[f.name], text)
        values.update(overrides)
        return cls(**values)

    def __post_init__(self) -> None:
        for f in fields(self):
            _check_range(f, getattr(self, f.name))
        if self.execution_timeout > self.max_execution_timeout:
            raise SettingsError(
                f"EXECUTION_TIMEOUT={self.execution_timeout:g} is over MAX_EXECUTION_TIMEOUT="
                f"{self.max_execution_timeout:g}; lower the first or raise the second."
            )
        if self.public_base_url and not re.fullmatch(r"https?://[^\s/]+(/[^\s]*)?", self.public_base_url):
            raise SettingsError(f"PUBLIC_BASE_URL={self.public_base_url!r}: give an http or https address.")

    @property
    def bind_host(self) -> str:
        """The address to listen on: `HOST`, else all of them on a Space and loopback anywhere else."""
        return self.host or ("0.0.0.0" if self.space_id else "127.0.0.1")

    @property
    def concurrent_cells(self) -> int:
        """Cells that may be under way at once; 0 where there is no cap."""
        return self.max_concurrent if self.max_concurrent >= 0 else 4 * len(os.sched_getaffinity(0))

    def work_path(self) -> Path:
        """The folder for live sessions, made if need be, readable by us alone."""
        if self.work_dir:
            path = Path(self.work_dir).expanduser().absolute()
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path
        return Path(tempfile.mkdtemp(prefix="code-interpreter-"))

    def public(self) -> dict[str, Any]:
        """Field names and values, secrets masked as `set` or `not set`."""
        return {
            f.name: ("set" if getattr(self, f.name) else "not set") if f.metadata[SECRET] else getattr(self, f.name)
            for f in fields(self)
        }


def documented() -> list[tuple[str, str, str]]:
    """(variable, default, meaning) of every setting, for the README and its test."""
    return [
        (f.name.upper(), ",".join(f.default) if isinstance(f.default, tuple) else f"{f.default}", f.metadata["help"])
        for f in fields(Settings)
    ]


_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off"}


def _parse(f: Field[Any], kind: Any, text: str) -> Any:
    shown = "***" if f.metadata[SECRET] else repr(text)
    if kind is bool:
        if text.lower() in _TRUE | _FALSE:
            return text.lower() in _TRUE
        raise SettingsError(f"{f.name.upper()}={shown}: give 1 or 0.")
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            noun = "a whole number" if kind is int else "a number"
            raise SettingsError(f"{f.name.upper()}={shown}: give {noun}{_range(f)}.") from None
    if kind == tuple[str, ...]:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if choices := get_args(kind):
        if text.lower() not in choices:
            raise SettingsError(f"{f.name.upper()}={shown}: give one of {', '.join(choices)}.")
        return text.lower()
    return text


def _check_range(f: Field[Any], value: Any) -> None:
    low, high = f.metadata["low"], f.metadata["high"]
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    # `not (a <= b)` and not `a > b`: a NaN must fail, too
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        raise SettingsError(f"{f.name.upper()}={value}: give a number{_range(f)}.")


def _range(f: Field[Any]) -> str:
    low, high = f.metadata["low"], f.metadata["high"]
    if low is None:
        return ""
    return f" of at least {low:g}" if high is None else f" from {low:g} to {high:g}"
