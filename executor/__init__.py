"""Runs Python, JavaScript and bash in live, sandboxed sessions.

async with Executor(Settings.from_env()) as executor:
    session = await executor.create_session(owner="a")
    result = await executor.execute("x = 41", language="python", session_id=session.id, owner="a")
"""

from executor.backend import Displayed, ExecutionEvent, Finished, OutputChunk
from executor.errors import (
    BackendFailed,
    Busy,
    ExecutorError,
    FileRefused,
    InvalidRequest,
    NoSuchExecution,
    NoSuchFile,
    NoSuchSession,
    QuotaExceeded,
    SandboxTooWeak,
    SettingsError,
)
from executor.packages.report import Package, PackageReport, Refusal
from executor.results import ErrorInfo, ExecutionResult, FileInfo, HistoryEntry, Output, Picture, SessionInfo, Violation
from executor.service import Executor
from executor.settings import Settings

__all__ = [
    "BackendFailed",
    "Busy",
    "Displayed",
    "ErrorInfo",
    "ExecutionEvent",
    "ExecutionResult",
    "Executor",
    "ExecutorError",
    "FileInfo",
    "FileRefused",
    "Finished",
    "HistoryEntry",
    "InvalidRequest",
    "NoSuchExecution",
    "NoSuchFile",
    "NoSuchSession",
    "Output",
    "OutputChunk",
    "Package",
    "PackageReport",
    "Picture",
    "QuotaExceeded",
    "Refusal",
    "SandboxTooWeak",
    "SessionInfo",
    "Settings",
    "SettingsError",
    "Violation",
]
