"""Landlock: what a worker may read, write and run, with every ABI that the kernel can be cut down to."""

import errno
import os
import socket

import pytest

from executor.sandbox import landlock
from executor.sandbox.confinement import Layers
from tests.sandbox.confined import confined

ABIS = range(1, landlock.abi() + 1)


def code_of(act):
    try:
        act()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "worked"


@pytest.fixture
def canary(tmp_path):
    tmp_path.chmod(0o755)
    file = tmp_path / "canary"
    file.write_text("secret")
    file.chmod(0o666)
    return str(file)


@pytest.mark.parametrize("abi", ABIS)
def test_a_worker_reads_its_libraries_and_writes_its_folder_only(canary, abi):
    def act():
        with open("own", "w") as file:
            file.write("x")
        os.rename("own", "renamed")
        os.mkdir("folder")
        os.rename("renamed", "folder/own") if abi > 1 else None
        return {
            "library": code_of(lambda: open(os.__file__).close()),
            "read": code_of(lambda: open(canary).close()),
            "write": code_of(lambda: open(canary, "a").close()),
            "truncate": code_of(lambda: os.truncate(canary, 0)),
            "delete": code_of(lambda: os.unlink(canary)),
            "list": code_of(lambda: os.listdir(os.path.dirname(canary))),
            "library for writing": code_of(lambda: open(os.__file__, "a").close()),
            "run own": code_of(lambda: (os.symlink("/bin/true", "t"), os.spawnl(os.P_WAIT, "t", "t"))),
            "hard link in": code_of(lambda: os.link(canary, "stolen")),
        }

    outcome = confined(act, layers=Layers(namespaces=False, landlock_abi=abi))
    assert not outcome.error, outcome.error
    allowed = {name for name, result in outcome.value.items() if result == "worked"}
    assert allowed == {"library", "run own"}, outcome.value
    with open(canary) as file:
        assert file.read() == "secret"


@pytest.mark.parametrize("abi", ABIS)
def test_a_worker_cannot_look_into_its_leader(abi):
    leader = os.getpid()

    def act():
        parent = os.getppid()
        return [
            code_of(lambda name=name, pid=pid: open(f"/proc/{pid}/{name}", "rb").close())
            for pid in (parent, leader)
            for name in ("environ", "mem", "maps", "cmdline", "status")
        ]

    outcome = confined(act, layers=Layers(namespaces=False, landlock_abi=abi))
    assert set(outcome.value) == {"EACCES"}


def test_rights_are_found_by_asking_and_cut_down_on_demand():
    full = landlock.handled()
    assert full is not None
    first = landlock.handled(1)
    assert (first.files, first.network, first.scopes) == (2**13 - 1, 0, 0)
    assert not first.truncate and not first.tcp and not first.signals
    assert full.files & first.files == first.files


def test_a_ruleset_refuses_tcp_even_to_a_process_without_a_filter():
    if not landlock.handled().tcp:
        pytest.skip("Landlock of this kernel has no rules for TCP (ABI 4, Linux 6.7).")
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]

    def act():
        return code_of(lambda: socket.create_connection(("127.0.0.1", port), 1).close())

    assert confined(act, layers=Layers(namespaces=False, filter=False)).value == "EACCES"
