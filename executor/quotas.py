"""Quotas: what one owner has and may have, so that nobody starves the others.

Plain bookkeeping: it waits for nothing and ends nothing. Who may run how many cells at once is in `executor.cells`.

How keeper and service use it (one `Quotas` of the executor):

    quotas.admit_call(owner)                 # each execute, install, put_file: before anything else is done for it
    quotas.admit_session(owner, count)       # before a session is made; `count` of the owner's, live and parked
    quotas.admit_memory(owner)               # before a session is made or restored; park idle ones of the owner first,
                                             # while `excess_memory(owner)` is over 0: nothing is lost by that
    quotas.admit_disk(owner, size)           # before a session is made, a file put, packages installed
    quotas.note_memory(owner, session, n)    # bytes of a live session, whenever the backend was asked (`stats`)
    quotas.note_folder(owner, session, n)    # bytes of a live session's folder, likewise
    quotas.note_snapshot(owner, session, n)  # bytes of its newest snapshot, when one was written or found
    quotas.parked(owner, session)            # its processes and folder are gone, its snapshot stays
    quotas.forget(owner, session)            # it is gone altogether

Code in a session that lives is never refused for memory or disk: it may be what gives them back, and the limits of the
session hold for it.

**Owners who stand for many people** (`shared`: callers without identity headers, and the one owner of `SINGLE_USER`)
have no caps. Without headers everybody is `anonymous`, so any figure would be too small for all of them or no cap for
one of them, and every call without a session id makes a session, so that a cap on sessions would soon refuse everybody.
What holds for them is what holds for the machine: `MAX_SESSIONS`, `TOTAL_MEMORY_MB`, the store's size with the oldest
going first, `MAX_CONCURRENT`. In the queues they count as one, so that they cannot hold up users who are known. With
`SINGLE_USER` the machine is one person's, and there is nobody to be kept from starving.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass

from executor.errors import QuotaExceeded
from executor.events import Event, QuotaKind, QuotaRefused
from executor.settings import Settings
from executor.turns import Clock

_MIB = 1024 * 1024
_BUCKETS = 10_000
"""Owners whose calls are counted at once; of more, those who called longest ago begin anew, which is to their good."""


@dataclass(slots=True)
class _Usage:
    """What one session takes, in bytes; `memory` and `folder` while it lives."""

    memory: int = 0
    folder: int = 0
    snapshot: int = 0


@dataclass(slots=True)
class _Bucket:
    """Calls that an owner may make at once, as of `at`."""

    tokens: float
    at: float


class Quotas:
    """What each owner uses, against the caps of `settings`; a cap of 0 is none. `shared` are owners without caps.

    Every `admit_...` raises QuotaExceeded, with the figure, the cap and what to do, and publishes the refusal.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        shared: Collection[str] = (),
        publish: Callable[[Event], None] = lambda _: None,
        clock: Clock = time.monotonic,
    ) -> None:
        self._settings = settings
        self._shared = frozenset(shared)
        self._publish = publish
        self._clock = clock
        self._rate = settings.owner_calls_per_minute / 60
        self._burst = float(max(1, settings.owner_calls_per_minute // 2))
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()
        self._usage: dict[str, dict[str, _Usage]] = {}

    # Calls

    def admit_call(self, owner: str) -> None:
        """Count a call: a token bucket of half the cap, filled at the cap's rate."""
        if not self._rate or owner in self._shared:
            return
        now = self._clock()
        bucket = self._buckets.pop(owner, None) or _Bucket(self._burst, now)
        self._buckets[owner] = bucket
        while len(self._buckets) > _BUCKETS:
            self._buckets.popitem(last=False)
        bucket.tokens = min(self._burst, bucket.tokens + max(0.0, now - bucket.at) * self._rate)
        bucket.at = now
        # a filled token may be short of 1 by the rounding of many small additions
        if bucket.tokens < 1 - 1e-9:
            wait = (1 - bucket.tokens) / self._rate
            raise self._refusal(
                owner,
                "calls",
                f"This user made over {self._settings.owner_calls_per_minute} calls a minute, which is the cap. "
                f"Try again in {math.ceil(wait)} s, and do more in one call.",
                retry_after=wait,
            )
        bucket.tokens -= 1

    # Sessions

    def admit_session(self, owner: str, count: int) -> None:
        """May the owner of `count` sessions, live and parked, have another one?"""
        cap = self._settings.owner_sessions
        if cap and count >= cap and owner not in self._shared:
            raise self._refusal(
                owner,
                "sessions",
                f"This user has {count} sessions, live and parked; the cap is {cap}. "
                "Close one that is no longer needed with close_execution_session, then try again.",
            )

    # Memory and disk

    def memory(self, owner: str) -> int:
        """Bytes of the owner's live sessions, as last measured."""
        return sum(usage.memory for usage in self._usage.get(owner, {}).values())

    def disk(self, owner: str) -> int:
        """Bytes of the owner's folders and snapshots, as last measured."""
        return sum(usage.folder + usage.snapshot for usage in self._usage.get(owner, {}).values())

    def excess_memory(self, owner: str) -> int:
        """Bytes by which the owner's live sessions are over the cap; that much is to be parked."""
        return self._excess(owner, self._settings.owner_memory_mb, self.memory(owner))

    def excess_disk(self, owner: str, more: int = 0) -> int:
        """Bytes by which the owner's folders and snapshots would be over the cap with `more`."""
        return self._excess(owner, self._settings.owner_disk_mb, self.disk(owner) + more)

    def admit_memory(self, owner: str) -> None:
        """May the owner have another live session?"""
        if self.excess_memory(owner):
            raise self._refusal(
                owner,
                "memory",
                f"The live sessions of this user take {_mib(self.memory(owner))} of memory; the cap is "
                f"{self._settings.owner_memory_mb:,} MiB. Delete large variables, or close a session with "
                "close_execution_session, and try again in 15 s.",
                retry_after=15,
            )

    def admit_disk(self, owner: str, more: int = 0) -> None:
        """May the owner store `more` bytes, 0 where it is not known how many?"""
        if self.excess_disk(owner, more):
            coming = f", and {_mib(more)} would come on top" if more else ""
            raise self._refusal(
                owner,
                "disk",
                f"The files and saved sessions of this user take {_mib(self.disk(owner))}{coming}; the cap is "
                f"{self._settings.owner_disk_mb:,} MiB. Delete files with delete_file, or close a session with "
                "close_execution_session, then try again.",
            )

    def note_memory(self, owner: str, session: str, size: int) -> None:
        """A live session takes that many bytes of memory."""
        self._of(owner, session).memory = max(0, size)

    def note_folder(self, owner: str, session: str, size: int) -> None:
        """A live session's folder has that many bytes."""
        self._of(owner, session).folder = max(0, size)

    def note_snapshot(self, owner: str, session: str, size: int) -> None:
        """All that is stored of a session has that many bytes, what it shares with others counted with each."""
        self._of(owner, session).snapshot = max(0, size)

    def parked(self, owner: str, session: str) -> None:
        """A session's processes and folder are gone, its snapshot is not."""
        usage = self._of(owner, session)
        usage.memory = usage.folder = 0

    def forget(self, owner: str, session: str) -> None:
        """A session is gone. Idempotent."""
        sessions = self._usage.get(owner, {})
        sessions.pop(session, None)
        if not sessions:
            self._usage.pop(owner, None)

    def _of(self, owner: str, session: str) -> _Usage:
        return self._usage.setdefault(owner, {}).setdefault(session, _Usage())

    def _excess(self, owner: str, cap_mib: int, used: int) -> int:
        return max(0, used - cap_mib * _MIB) if cap_mib and owner not in self._shared else 0

    def _refusal(
        self, owner: str, kind: QuotaKind, sentence: str, *, retry_after: float | None = None
    ) -> QuotaExceeded:
        self._publish(QuotaRefused(owner=owner, kind=kind))
        return QuotaExceeded(sentence, retry_after=retry_after)


def _mib(size: int) -> str:
    return f"{math.ceil(size / _MIB):,} MiB"
