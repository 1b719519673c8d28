"""What an execution gave: plain data, to and from JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self, get_args

Language = Literal["python", "javascript", "bash"]
LANGUAGES: tuple[Language, ...] = get_args(Language)

Status = Literal["ok", "error", "running", "timeout", "interrupted", "blocked", "memory", "disk", "crashed", "lost"]
STATUSES: tuple[Status, ...] = get_args(Status)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture sized for the reader, with the path of the full-size file in the session's folder.

    `data` is base64 exactly as the sandbox made it; the server never decodes it.
    """

    mime: str
    data: str
    width: int
    height: int
    path: str | None = None
    alt: str = ""


@dataclass(frozen=True, slots=True)
class Output:
    """One displayed value: a MIME bundle (text types and JSON), and a picture where there is one.

    `is_result` marks the value of the last expression, as against something displayed on the way.
    """

    data: dict[str, Any] = field(default_factory=dict)
    picture: Picture | None = None
    is_result: bool = False


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file of the session: path relative to its folder, size in bytes, modification time in seconds since 1970."""

    path: str
    size: int
    modified: float
    change: Literal["new", "changed"] | None = None


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An error that the guest's code raised: `line` counts from 1 within the cell, `traceback` is short.

    `hint` is a sentence on what to do next, where the cause is known.
    """

    type: str
    message: str
    line: int | None = None
    traceback: str = ""
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that a cell made or changed: `summary` is `= 41`, `of 12`, `1000x3` or nothing."""

    name: str
    type: str
    summary: str
    change: Literal["new", "changed"]


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that refused the code (`layer="policy"`), or a kernel layer that refused an act (`layer="sandbox"`)."""

    rule: str
    message: str
    line: int = 1
    column: int = 1
    layer: Literal["policy", "sandbox"] = "policy"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """The outcome of one execution.

    `return_code` is 0 or 1 for Python and JavaScript, the exit status for bash, 128 + signal for a killed worker, None
    while it runs. `execution_time` is in seconds. `notices` are sentences about what was cut, lost or restarted: they
    belong into every form in which a reader meets the result.
    """

    status: Status
    session_id: str
    execution_id: str
    language: Language
    stdout: str = ""
    stderr: str = ""
    return_code: int | None = None
    execution_time: float = 0.0
    outputs: tuple[Output, ...] = ()
    files: tuple[FileInfo, ...] = ()
    error: ErrorInfo | None = None
    violations: tuple[Violation, ...] = ()
    truncated: bool = False
    notices: tuple[str, ...] = ()
    variables: tuple[Variable, ...] = ()

    @property
    def success(self) -> bool:
        """Whether the code ran to its end without an error."""
        return self.status == "ok"

    def to_json(self) -> dict[str, Any]:
        """The result as JSON data, pictures included."""
        return {"success": self.success, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The result again, from `to_json`."""
        values = {key: value for key, value in data.items() if key != "success"}
        values["outputs"] = tuple(
            Output(data=o["data"], picture=Picture(**o["picture"]) if o["picture"] else None, is_result=o["is_result"])
            for o in data.get("outputs", ())
        )
        values["files"] = tuple(FileInfo(**f) for f in data.get("files", ()))
        values["error"] = ErrorInfo(**data["error"]) if data.get("error") else None
        values["violations"] = tuple(Violation(**v) for v in data.get("violations", ()))
        values["notices"] = tuple(data.get("notices", ()))
        values["variables"] = tuple(Variable(**v) for v in data.get("variables", ()))
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Lost:
    """Something that a snapshot could not keep: a variable, or `` for all that a language had; `cell` made it."""

    name: str
    type: str
    reason: str
    language: Language
    cell: int | None = None


@dataclass(frozen=True, slots=True)
class LanguageState:
    """What a snapshot holds of one language: the names kept, and what was lost; `problem` where nothing was kept."""

    language: Language
    names: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One execution as the session remembers it; `timestamp` is in seconds since 1970, when it started."""

    code: str
    language: Language
    result: ExecutionResult
    timestamp: float
    whole_chars: int = 0
    """Characters of the code that ran, where `code` is no more than its beginning; 0 where it is all of it."""

    @property
    def cut(self) -> str:
        """A sentence on what `code` lacks; empty where it is whole. What is cut must not be run as if it were whole."""
        if not self.whole_chars:
            return ""
        return f"Only the first {len(self.code):,} of {self.whole_chars:,} characters of this code were kept."


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session as its owner sees it; times in seconds since 1970."""

    id: str
    owner: str
    created_at: float
    last_used: float
    executions: int
    running: str | None = None
    state: Literal["live", "parked"] = "live"
    snapshot_at: float | None = None
    """When its last good snapshot was taken; what came after would be lost with the machine."""
    snapshot_bytes: int = 0
    """What its snapshot takes in the store."""
    names: tuple[str, ...] = ()
    """The variables in that snapshot, as far as they are named."""
