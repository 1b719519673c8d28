"""Seccomp: turns the table of verdicts into a BPF program, and puts it on with a listener for the leader.

Source: Linux, Documentation/userspace-api/seccomp_filter.rst and include/uapi/linux/{seccomp,filter,audit}.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Mapping
from typing import Final

from executor.sandbox.kernel import syscall
from executor.sandbox.syscalls import NEWEST, UNASSIGNED, Allow, Clause, Errno, Notify, Rule, Test, Verdict

_SECCOMP: Final = 317
_SET_MODE_FILTER: Final = 1
_GET_ACTION_AVAIL: Final = 2
_NEW_LISTENER: Final = 1 << 3
_WAIT_KILLABLE: Final = 1 << 5

_RET_KILL_PROCESS: Final = 0x80000000
_RET_ERRNO: Final = 0x00050000
_RET_NOTIFY: Final = 0x7FC00000
_RET_ALLOW: Final = 0x7FFF0000

_AUDIT_ARCH_X86_64: Final = 0xC000003E
_X32_BIT: Final = 0x40000000

# classic BPF: load a word, and with a constant, jump if equal / greater / greater or equal, return
_LD, _AND, _JEQ, _JGT, _JGE, _RET = 0x20, 0x54, 0x15, 0x25, 0x35, 0x06
_NR_AT, _ARCH_AT, _ARGS_AT = 0, 4, 16


def _op(code: int, k: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, k & 0xFFFFFFFF)


def _verdict(verdict: Verdict) -> bytes:
    match verdict:
        case Allow():
            return _op(_RET, _RET_ALLOW)
        case Notify():
            return _op(_RET, _RET_NOTIFY)
        case Errno(number):
            return _op(_RET, _RET_ERRNO | number)


def _test(test: Test, fail: int) -> bytes:
    """Fall through where `test` holds, else jump `fail` instructions beyond its end."""
    load = _op(_LD, _ARGS_AT + 8 * test.argument + (4 if test.high else 0))
    if test.mask != 0xFFFFFFFF:
        load += _op(_AND, test.mask)
    jumps = b""
    last = len(test.values) - 1
    for i, value in enumerate(test.values):
        beyond = last - i
        equal, different = (beyond + fail, 0) if test.other else (beyond, 0)
        if i == last:
            different = 0 if test.other else fail
        jumps += _op(_JEQ, value, equal, different)
    return load + jumps


def _clause(clause: Clause) -> bytes:
    code = _verdict(clause.verdict)
    for test in reversed(clause.tests):
        code = _test(test, len(code) // 8) + code
    return code


def _rule(number: int, rule: Rule) -> bytes:
    body = b"".join(map(_clause, rule.clauses)) + _verdict(rule.otherwise)
    return _op(_JEQ, number, 0, len(body) // 8) + body


def assemble(rules: Mapping[int, Rule]) -> bytes:
    """The filter as struct sock_filter[]: foreign architectures and x32 are killed, unknown numbers do not exist."""
    code = _op(_LD, _ARCH_AT) + _op(_JEQ, _AUDIT_ARCH_X86_64, 1) + _op(_RET, _RET_KILL_PROCESS)
    code += _op(_LD, _NR_AT)
    code += _op(_JGE, _X32_BIT, 0, 1) + _op(_RET, _RET_KILL_PROCESS)
    code += _op(_JGT, NEWEST, 0, 1) + _op(_RET, _RET_ERRNO | errno.ENOSYS)
    code += _op(_JGE, UNASSIGNED.start, 0, 2) + _op(_JGT, UNASSIGNED.stop - 1, 1) + _op(_RET, _RET_ERRNO | errno.ENOSYS)
    for number, rule in rules.items():
        code += _rule(number, rule)
    return code + _op(_RET, _RET_ALLOW)


class Filter:
    """An assembled filter, ready to be put on by any number of forked children."""

    def __init__(self, program: bytes) -> None:
        self._program = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("=H6xQ", len(program) // 8, ctypes.addressof(self._program))
        self._head = ctypes.create_string_buffer(head, len(head))

    def install(self, *, listener: bool) -> int | None:
        """Put the filter on the calling thread for good; needs no_new_privs. Raises OSError.

        With `listener`, gives the descriptor on which the leader answers: hand it over and close it before any guest
        code runs, for whoever holds it decides.
        """
        address = ctypes.addressof(self._head)
        if not listener:
            syscall(_SECCOMP, _SET_MODE_FILTER, 0, address)
            return None
        try:
            # a signal then waits for the answer, so that a fork that was counted is a fork that happened
            return syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE, address)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        return syscall(_SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, address)


def notification_available() -> bool:
    """Whether the kernel knows user notification (Linux 5.0)."""
    action = ctypes.create_string_buffer(struct.pack("=I", _RET_NOTIFY), 4)
    try:
        syscall(_SECCOMP, _GET_ACTION_AVAIL, 0, ctypes.addressof(action))
    except OSError:
        return False
    return True


def send_listener(control: socket.socket, listener: int | None) -> None:
    """The worker's side: say that it is held, with the listener where there is one, which is closed here."""
    if listener is None:
        control.send(b"+")
        return
    socket.send_fds(control, [b"+"], [listener])
    os.close(listener)
