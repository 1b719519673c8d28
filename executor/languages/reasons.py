"""Why a variable cannot be kept, in a few words that a person or a model understands."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

from executor.languages.bundles import clean_text
from executor.languages.channel import MAX_WORDS

_name_of = type.__dict__["__name__"].__get__
_module_of: Callable[[type], Any] = type.__dict__["__module__"].__get__
_mro_of: Callable[[type], tuple[type, ...]] = type.__dict__["__mro__"].__get__

_WORDS = {
    "builtins.generator": "generator in the middle of its work",
    "builtins.async_generator": "async generator in the middle of its work",
    "builtins.coroutine": "coroutine in the middle of its work",
    "builtins.frame": "frame of running code",
    "builtins.traceback": "traceback of running code",
    "builtins.memoryview": "memoryview, a window into another object's memory",
    "builtins.PyCapsule": "object of a C library",
    "_asyncio.Task": "running asyncio task",
    "_asyncio.Future": "asyncio future",
    "asyncio.events.AbstractEventLoop": "asyncio event loop",
    "socket.socket": "open socket",
    "_socket.socket": "open socket",
    "ssl.SSLContext": "SSL context",
    "select.epoll": "poll on open files",
    "_thread.lock": "lock",
    "_thread.RLock": "lock",
    "_thread._local": "value of its own for each thread",
    "threading.Thread": "thread",
    "threading.Event": "threading event",
    "threading.Condition": "threading condition",
    "threading.Semaphore": "threading semaphore",
    "threading.Barrier": "threading barrier",
    "threading.local": "value of its own for each thread",
    "queue.Queue": "queue between threads",
    "_queue.SimpleQueue": "queue between threads",
    "concurrent.futures._base.Future": "future of another thread",
    "concurrent.futures._base.Executor": "pool of threads or processes",
    "multiprocessing.pool.Pool": "pool of processes",
    "multiprocessing.process.BaseProcess": "process",
    "subprocess.Popen": "running process",
    "sqlite3.Connection": "sqlite connection",
    "sqlite3.Cursor": "sqlite cursor",
    "mmap.mmap": "memory-mapped file",
    "posix.DirEntry": "entry of a folder listing",
    "posix.ScandirIterator": "folder listing in the middle of its work",
    "re.Match": "match of a regular expression",
    "_csv.reader": "csv reader",
    "_csv.writer": "csv writer",
    "weakref.ReferenceType": "weak reference",
    "weakref.ProxyType": "weak reference",
    "weakref.CallableProxyType": "weak reference",
    "_weakrefset.WeakSet": "weak reference",
    "weakref.WeakValueDictionary": "weak reference",
    "weakref.WeakKeyDictionary": "weak reference",
    "weakref.finalize": "weak reference",
    "tempfile._TemporaryFileWrapper": "temporary file",
    "tempfile.SpooledTemporaryFile": "temporary file",
    "tempfile.TemporaryDirectory": "temporary folder",
    "ctypes.CDLL": "C library",
    "_ctypes._SimpleCData": "C object",
    "_ctypes.CFuncPtr": "function of a C library",
    "_ctypes._Pointer": "pointer into memory",
    "_contextvars.ContextVar": "context variable",
    "_contextvars.Context": "context of variables",
    "_hashlib.HASH": "hash in the middle of its work",
    "numpy.ufunc": "numpy function made by code",
    "zipfile.ZipFile": "open archive",
    "tarfile.TarFile": "open archive",
}
"""What things are called that pickle refuses, by the full name of their type or of one it inherits from."""


class Unsaveable(Exception):
    """An object that must not be pickled although pickle would take it; the message says why, in a few words."""


class TooLarge(Exception):
    """The state has reached its limit of bytes."""


class Overdue(BaseException):
    """An object of the guest's takes too long; derived from BaseException, so that its own handlers let it pass."""


def type_name(kind: type) -> str:
    """The bare name of a type, whatever its metaclass says."""
    return bounded(_name_of(kind), 100)


def bounded(text: str, limit: int = MAX_WORDS) -> str:
    """`text` as one clean line of at most `limit` characters."""
    text = clean_text(text).replace("\n", " ")
    return text if len(text) <= limit else text[: limit - 1] + "…"


def told_name(key: Any) -> str:
    """What a variable is called in a head; names that are no texts are told by their value or type."""
    if type(key) is str:
        return bounded(key)
    return bounded(repr(key)) if type(key) in (int, float, bool, bytes, type(None)) else f"<{type_name(type(key))}>"


def cell_of(cells: Mapping[str, int], key: Any) -> int | None:
    """The cell that made or last changed a variable, as far as that is known."""
    return cells.get(key) if type(key) is str else None


def words_for(value: object) -> str | None:
    """What `value` is called, where it is of a kind that cannot be kept."""
    for kind in _mro_of(type(value)):
        if (words := _WORDS.get(f"{_module_of(kind)}.{_name_of(kind)}")) is not None:
            return words
    return None


def reason_of(error: BaseException, value: object, culprit: object, limit: int) -> str:
    """Why `value` was not saved: `culprit` is what was looked at when `error` came, `limit` the state's bytes."""
    match error:
        case TooLarge():
            return f"too large: a saved state may take {limit / 1e6:,.0f} MB"
        case Overdue():
            return "saving it took too long"
        case RecursionError():
            return "nested too deeply"
        case MemoryError():
            return "not enough memory to save it"
    own = words_for(value)
    if own is not None:
        return own
    if isinstance(error, Unsaveable):
        words = str(error)
    elif (words_of_culprit := words_for(culprit)) is not None:
        words = words_of_culprit
    elif isinstance(error, (TypeError, pickle.PicklingError, AttributeError)):
        words = f"{type_name(type(culprit))} object, which cannot be saved"
    else:
        words = f"{type_name(type(culprit))} object that raised {type_name(type(error))} when it was saved"
    if culprit is value:
        return bounded(words)
    article = "" if words.startswith(("values", "memory")) else "an " if words[:1] in "aeiou" else "a "
    return bounded(f"holds {article}{words}")
