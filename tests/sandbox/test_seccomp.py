"""Seccomp: each verdict of the table reaches the kernel as it is meant, and nothing slips past by its number."""

import ctypes
import errno
import fcntl
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from executor.sandbox import seccomp, syscalls
from executor.sandbox.confinement import Layers
from executor.sandbox.kernel import syscall
from executor.sandbox.syscalls import Surroundings, rules
from tests.sandbox.confined import confined

HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


def code_of(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno].replace("ENOTSUP", "EOPNOTSUPP")
    return "worked"


def test_fixed_refusals_reach_the_kernel_with_their_numbers():
    table = rules(Surroundings(signals=True, truncate=True))
    plain = {
        number: rule.otherwise.number
        for number, rule in table.items()
        if isinstance(rule.otherwise, syscalls.Errno) and not rule.clauses and rule.otherwise.number
    }

    def act():
        wrong = {}
        for number, expected in plain.items():
            try:
                syscall(number, -1, -1, -1, -1, -1, -1)
                wrong[number] = "worked"
            except OSError as error:
                if error.errno != expected:
                    wrong[number] = errno.errorcode[error.errno]
        return [len(plain), wrong]

    count, wrong = confined(act, layers=Layers(namespaces=False)).value
    assert count > 60 and not wrong


def test_what_the_leader_refuses_is_counted_by_kind():
    def act():
        found = [code_of(lambda n=n: syscall(n, -1, -1, -1, -1, -1)) for n in (101, 308, 321, 250)]
        return [*found, code_of(socket.socket), code_of(lambda: os.chmod("/usr", 0o700))]

    outcome = confined(act)
    assert outcome.value == ["EPERM", "EPERM", "EPERM", "EPERM", "ENETUNREACH", "EPERM"]
    assert outcome.denials == {"trace": 1, "namespaces": 1, "kernel": 2, "network": 1, "permissions": 1}


def test_numbers_above_the_newest_do_not_exist():
    outcome = confined(lambda: {code_of(lambda n=n: syscall(n)) for n in (*range(463, 520), 337, 423)} == {"ENOSYS"})
    assert outcome.value is True


@pytest.mark.parametrize("number", [0x40000000 | 39, 0xFFFFFFFF])
def test_a_foreign_number_kills(number):
    outcome = confined(lambda: syscall(number))
    assert os.WTERMSIG(outcome.status) == signal.SIGSYS


def test_the_32_bit_table_kills():
    def act():
        with open("a.c", "w") as file:
            file.write(
                'int main(void) { long r; __asm__ volatile("int $0x80" : "=a"(r) : "a"(20L) : "memory"); return r; }'
            )
        # /tmp may not be there: where the interpreter lies in it, sessions have none of their own
        subprocess.run(["gcc", "-o", "a", "a.c"], check=True, env={**os.environ, "TMPDIR": os.getcwd()})
        return subprocess.run(["./a"], check=False).returncode

    assert confined(act).value == -signal.SIGSYS


@pytest.mark.parametrize(
    ("command", "argument", "allowed"),
    [
        (fcntl.F_GETFL, 0, True),
        (fcntl.F_DUPFD, 0, True),
        (8, 1, False),
        (10, 9, False),
        (1024, 0, False),
        (1026, 1, False),
    ],
)
def test_fcntl_is_judged_by_its_command(command, argument, allowed):
    outcome = confined(lambda: code_of(lambda: fcntl.fcntl(0, command, argument)))
    assert (outcome.value == "EPERM") is not allowed


@pytest.mark.parametrize(
    ("option", "argument", "answer"), [(38, 1, 0), (35, 1, -1), (22, 2, -1), (59, 1, -1), (1, 0, 0)]
)
def test_prctl_is_judged_by_its_option(option, argument, answer):
    libc = ctypes.CDLL(None)
    assert confined(lambda: libc.prctl(option, argument, 0, 0, 0)).value == answer


def test_sockets_are_local_pairs_only():
    def act():
        kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET)
        pairs = [code_of(lambda k=k: [end.close() for end in socket.socketpair(socket.AF_UNIX, k)]) for k in kinds]
        return [*pairs, code_of(lambda: socket.socket(socket.AF_UNIX)), code_of(lambda: socket.socket(socket.AF_INET6))]

    strong = confined(act, layers=Layers(namespaces=False)).value
    assert strong == ["worked", "EOPNOTSUPP", "EOPNOTSUPP", "EACCES", "ENETUNREACH"]


def test_no_call_makes_a_file_with_special_bits():
    def act():
        found = [
            code_of(lambda: os.open("a", os.O_CREAT | os.O_WRONLY, 0o4755)),
            code_of(lambda: syscall(85, ctypes.addressof(ctypes.create_string_buffer(b"b")), 0o2755)),
            code_of(lambda: os.mknod("c", 0o106755)),
            code_of(lambda: os.close(os.open("d", os.O_CREAT | os.O_WRONLY, 0o755))),
        ]
        os.chmod("d", 0o6755)
        return [*found, os.stat("d").st_mode & 0o7777]

    assert confined(act).value == ["EPERM", "EPERM", "EPERM", "worked", 0o755]


def test_the_table_names_calls_by_their_right_numbers():
    if not HEADER.exists():
        pytest.fail("linux-libc-dev is needed to check the numbers")
    header = dict(re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text()))
    for table in (syscalls.FORKS, syscalls.MODES, syscalls.TIMES, syscalls.SIGNALS, syscalls.TARGETS):
        for number, name in table.items():
            assert int(header.get(name, number)) == number, name


def test_a_filter_is_small_enough_for_the_kernel_in_all_surroundings():
    for bits in range(32):
        around = Surroundings(*(bool(bits >> i & 1) for i in range(5)))
        assert len(seccomp.assemble(rules(around))) // 8 < 4096
