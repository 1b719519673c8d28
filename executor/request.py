"""Request: what a caller asks to run, checked before anything is started for it."""

from __future__ import annotations

from dataclasses import dataclass, field

from executor.errors import InvalidRequest
from executor.results import LANGUAGES, Language
from executor.settings import Settings


@dataclass(frozen=True, slots=True)
class Request:
    """Code that can be run as it is; `timeout` in seconds."""

    code: str = field(repr=False)
    language: Language
    timeout: float


def check_request(code: str, language: str, timeout: float | None, settings: Settings) -> Request:
    """The request in order, with the default timeout where none is given. Raises InvalidRequest with a sentence."""
    return Request(
        _checked_code(code, settings.max_code_bytes), _checked_language(language), _checked_timeout(timeout, settings)
    )


def _checked_language(language: str) -> Language:
    for known in LANGUAGES:
        if language == known:
            return known
    raise InvalidRequest(f"Unknown language {str(language)[:40]!r}. Use one of {', '.join(LANGUAGES)}.")


def _checked_code(code: str, most: int) -> str:
    if not isinstance(code, str) or not code.strip():
        raise InvalidRequest("The code is empty. Give the code to run as text.")
    try:
        size = len(code.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"The code has half of a character (a lone surrogate) at position {error.start}. Write it as an escape."
        ) from None
    if size > most:
        raise InvalidRequest(
            f"The code has {size:,} bytes, at most {most:,} are allowed. "
            "Upload data as a file and read it from the code."
        )
    if (position := code.find("\0")) >= 0:
        raise InvalidRequest(f"The code has a NUL byte at position {position}. Write it as an escape, such as \\x00.")
    return code


def _checked_timeout(timeout: float | None, settings: Settings) -> float:
    longest = settings.max_execution_timeout
    if timeout is None:
        return settings.execution_timeout
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout <= longest:
        raise InvalidRequest(
            f"timeout={str(timeout)[:40]!r}: give seconds over 0 and up to {longest:g}, or leave it out for "
            f"{settings.execution_timeout:g}."
        )
    return float(timeout)
