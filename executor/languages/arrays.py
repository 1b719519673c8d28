"""Arrays in a saved state: raw bytes, and views that share memory after the loading as they did before."""

from __future__ import annotations

import array
import mmap
import pickle
import sys
from typing import Any

import numpy as np

from executor.languages.reasons import Unsaveable

_refcount = sys.getrefcount
_ALONE = 3
"""References to a base that only one view holds, as `getrefcount` counts them in `reduce_array`."""
_SHAREABLE = (bytearray, array.array, mmap.mmap)


def reduce_array(a: np.ndarray[Any, Any]) -> Any:
    """How pickle stores an array. NotImplemented leaves it to numpy. Raises Unsaveable."""
    base: Any = a.base
    if isinstance(base, np.ndarray):
        # a base that nobody else holds may be forgotten; one that others hold is written through them, too
        if _refcount(base) > _ALONE or (0 in a.strides and a.size > 1):
            return _reduce_view(a, base)
    elif base is not None and a.flags.writeable and _shared(base):
        raise Unsaveable("array that shares memory with another object")
    return _reduce_owner(a)


def check_array(a: np.ndarray[Any, Any]) -> None:
    """Raises Unsaveable for an array of a derived type that numpy would store apart from what it shares memory with."""
    if isinstance(a, np.memmap):
        raise Unsaveable("memory-mapped array")
    base: Any = a.base
    if isinstance(base, np.ndarray) and _refcount(base) > _ALONE:
        raise Unsaveable(f"{type(a).__name__} that shares memory with another array")


def _shared(base: object) -> bool:
    owner = base.obj if isinstance(base, memoryview) else base
    return isinstance(owner, _SHAREABLE)


def _order(a: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """The axes from the slowest to the fastest, so that a whole block of memory comes out in its order."""
    return tuple(sorted(range(a.ndim), key=lambda axis: -abs(a.strides[axis])))


def _flat(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any] | None:
    """The array's memory in one dimension, None where it has gaps."""
    turned = a.transpose(_order(a))
    return turned.reshape(-1) if turned.flags.c_contiguous else None


def _reduce_owner(a: np.ndarray[Any, Any]) -> Any:
    if a.dtype.hasobject or a.nbytes == 0:
        return NotImplemented if a.flags.writeable else (read_only, (a.copy(order="K"),))
    flat = _flat(a)
    if flat is None:
        a = np.array(a, order="C")
        flat = a.reshape(-1)
    octets: Any = flat.view(np.uint8)
    raw = pickle.PickleBuffer(octets)
    return make_array, (a.dtype, a.shape, a.strides, bool(a.flags.writeable), raw)


def make_array(
    dtype: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...], writeable: bool, raw: Any
) -> np.ndarray[Any, Any]:
    """An array that owns its memory."""
    made: np.ndarray[Any, Any] = np.ndarray(shape, dtype, strides=strides)
    flat = _flat(made)
    if flat is None:
        raise ValueError("The array's layout has gaps.")
    flat.view(np.uint8)[:] = np.frombuffer(raw, np.uint8)
    made.flags.writeable = writeable
    return made


def read_only(a: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The array, guarded against changes."""
    a.flags.writeable = False
    return a


def _reduce_view(a: np.ndarray[Any, Any], base: np.ndarray[Any, Any]) -> Any:
    ordered = _order(base)
    if _flat(base) is None or any(stride < 0 for stride in base.strides):
        raise Unsaveable("array that shares another one's memory in an unusual way")
    if base.dtype.hasobject and not (base.flags.c_contiguous or base.flags.f_contiguous):
        raise Unsaveable("array that shares another one's memory in an unusual way")
    offset = a.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return make_view, (base, ordered, a.dtype, a.shape, a.strides, offset, bool(a.flags.writeable))


def make_view(
    base: np.ndarray[Any, Any],
    ordered: tuple[int, ...],
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int,
    writeable: bool,
) -> np.ndarray[Any, Any]:
    """A view into `base`, `offset` bytes from its start."""
    flat = base.transpose(ordered).reshape(-1)
    made: np.ndarray[Any, Any] = np.ndarray(shape, dtype, buffer=flat, offset=offset, strides=strides)
    if made.flags.writeable and not writeable:
        made.flags.writeable = False
    return made
