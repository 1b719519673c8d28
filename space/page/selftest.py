"""The self-test: the three languages, one after the other, in a session of its own that is closed again."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from html import escape

from executor import Executor, ExecutorError
from executor.results import Language
from space.identity import PAGE_PREFIX

_CASES: tuple[tuple[Language, str, str], ...] = (
    ("python", "print(sum(range(11)))", "55"),
    ("javascript", "console.log([1, 2, 3].map((n) => n * n).join(' '))", "1 4 9"),
    ("bash", "echo $((6 * 7))", "42"),
)


async def self_test(executor: Executor) -> AsyncIterator[str]:
    """The table of what was tried so far, again after each language."""
    rows: list[str] = []
    owner = PAGE_PREFIX + secrets.token_urlsafe(16)
    began = time.perf_counter()
    try:
        session = await executor.create_session(owner=owner)
    except ExecutorError as error:
        yield _table([_row("a session", False, str(error), time.perf_counter() - began)])
        return
    rows.append(_row("a session", True, "made", time.perf_counter() - began))
    yield _table(rows)
    try:
        for language, code, wanted in _CASES:
            began = time.perf_counter()
            try:
                result = await executor.execute(code, language=language, session_id=session.id, owner=owner)
                well = result.success and result.stdout.strip() == wanted
                said = "works" if well else " ".join((result.status, result.stderr[:300], *result.notices))
            except ExecutorError as error:
                well, said = False, str(error)
            rows.append(_row(language, well, said, time.perf_counter() - began))
            yield _table(rows)
    finally:
        with contextlib.suppress(ExecutorError):  # it may have ended by itself
            await executor.close_session(session.id, owner=owner)


def _row(what: str, well: bool, said: str, seconds: float) -> str:
    kind = "ok" if well else "bad"
    return (
        f'<tr><td>{what}</td><td class="ci-{kind}">{"✓" if well else "✗"} {escape(said)}</td>'
        f"<td>{seconds * 1000:.0f} ms</td></tr>"
    )


def _table(rows: list[str]) -> str:
    return (
        '<div class="ci-wide"><table class="ci-table"><thead><tr><th>What</th><th>Outcome</th><th>Time</th></tr>'
        f"</thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
