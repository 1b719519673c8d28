import contextlib, ctypes, errno, os, sys


def escaped(*what):
    print("ESCAPED", *what, flush=True)


_c = ctypes.CDLL(None, use_errno=True)
_c.syscall.restype = ctypes.c_long


def syscall(number, *args):
    "A raw system call; OSError when it is refused."
    result = _c.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in args])
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def tries(act, *args, **kwargs):
    "The value, or the error as text."
    try:
        return act(*args, **kwargs)
    except Exception as error:
        print("refused:", repr(error)[:200], flush=True)
