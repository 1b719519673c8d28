"""What goes wrong on our side. What the guest does wrong is data in an `ExecutionResult`, never one of these."""


class ExecutorError(Exception):
    """Base of every error that `executor` raises; its text is a sentence for the person who reads it."""


class SettingsError(ExecutorError):
    """A setting has a value that cannot be used; names the variable, the value and what is allowed."""


class InvalidRequest(ExecutorError):
    """The caller asked for something that cannot be done as asked (unknown language, bad timeout, bad path)."""


class NoSuchSession(ExecutorError):
    """The session does not exist, or belongs to somebody else: the two are not told apart on purpose."""


class NoSuchExecution(ExecutorError):
    """The session knows no execution under that id."""


class NoSuchFile(ExecutorError):
    """The session's folder holds no such file."""


class FileRefused(ExecutorError):
    """A path or a file that the session's folder cannot take or give; the sentence says why."""


class Busy(ExecutorError):
    """Every place is taken by a session that is at work; try again later."""


class QuotaExceeded(ExecutorError):
    """The caller's own share is used up; the sentence says how much that is and what to do.

    `retry_after` is in seconds, None where waiting alone does not help.
    """

    def __init__(self, sentence: str, *, retry_after: float | None = None) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class SandboxTooWeak(ExecutorError):
    """This host lacks the kernel's means to hold hostile code, and `ALLOW_WEAK_SANDBOX` is not set."""


class BackendFailed(ExecutorError):
    """A process of ours died or did not answer by its deadline; the sentence says what was lost."""


class StoreFailed(ExecutorError):
    """The store of snapshots cannot be read or written now; the sentence says what could not be done."""


class NoSnapshot(ExecutorError):
    """The store holds nothing of that session."""
