"""An imitation of a Space's pod, to be thrown away: uid 1000 that owns the whole root file system, no capabilities, no
user namespaces, a seccomp profile like docker's; `--bare` leaves the profile out. Needs root.

    python -m tests.sandbox.pod [--bare] -- command ...

The root is an overlay whose changes live in memory, with every file of root's shown as uid 1000's; network, processes,
IPC and mounts are its own. What is broken in there is gone with it.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
import tempfile

from executor.sandbox import identity, seccomp
from executor.sandbox.kernel import PR_SET_PDEATHSIG, prctl, syscall
from executor.sandbox.namespaces import NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS, _mount, unshare
from executor.sandbox.syscalls import ALLOW, ENOSYS, EPERM, Clause, Rule, Test

UID = 1000
_AT_FDCWD, _AT_EMPTY_PATH = -100, 0x1000
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR, _PIVOT_ROOT, _UMOUNT2 = 428, 429, 442, 155, 166
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_ATTR_IDMAP = 0x00100000

# what docker's default profile refuses to a process without capabilities, by number
_REFUSED = (
    *(155, 161, 163, 165, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176, 177, 178, 179, 180),  # mounts, modules, ...
    *(
        103,
        134,
        135,
        136,
        139,
        153,
        156,
        159,
        164,
        212,
        227,
        237,
        238,
        239,
        246,
        248,
        249,
        250,
    ),  # keyrings, NUMA, clocks
    *(256, 272, 279, 298, 300, 304, 305, 308, 313, 320, 321, 323, 425, 426, 427),  # unshare, setns, bpf, perf, io_uring
    *(428, 429, 430, 431, 432, 433, 442, 443, 450),  # the new mount calls
)
_CLONE_NEW = 0x7E020000


def profile() -> bytes:
    """The seccomp profile as BPF."""
    rules = {number: Rule(EPERM) for number in _REFUSED}
    rules[435] = Rule(ENOSYS)
    rules[56] = Rule(ALLOW, (Clause(EPERM, (Test(0, (0,), mask=_CLONE_NEW, other=True),)),))
    rules[135] = Rule(EPERM, (Clause(ALLOW, (Test(0, (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)),)),))
    return seccomp.assemble(rules)


def _text(value: str) -> ctypes.Array:
    return ctypes.create_string_buffer(os.fsencode(value))


def _user_namespace() -> int:
    """A handle on a user namespace in which root's files belong to UID."""
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        unshare(NEWUSER)
        os.write(ready[1], b"+")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write(f"0 {UID} 1\n1 1 {UID - 1}\n")
    handle = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    os.write(done[1], b"+")
    os.waitpid(child, 0)
    return handle


def _root(base: str) -> str:
    """The pod's root, mounted below `base`."""
    _mount("pod", base, "tmpfs", 0, "size=6g,mode=755")
    for name in ("lower", "upper", "work", "root"):
        os.mkdir(f"{base}/{name}")
    os.chown(f"{base}/upper", UID, UID)
    tree = syscall(_OPEN_TREE, _AT_FDCWD, ctypes.addressof(_text("/")), 1 | os.O_CLOEXEC)
    attribute = ctypes.create_string_buffer(struct.pack("=4Q", _ATTR_IDMAP, 0, 0, _user_namespace()), 32)
    empty = _text("")
    syscall(_MOUNT_SETATTR, tree, ctypes.addressof(empty), _AT_EMPTY_PATH, ctypes.addressof(attribute), 32)
    target = _text(f"{base}/lower")
    syscall(_MOVE_MOUNT, tree, ctypes.addressof(empty), _AT_FDCWD, ctypes.addressof(target), 4)
    root = f"{base}/root"
    _mount("root", root, "overlay", 0, f"lowerdir={base}/lower,upperdir={base}/upper,workdir={base}/work")
    places = {"/tmp": "mode=1777", "/dev": "mode=755", "/sys": "mode=755", "/run": "mode=755"}
    if any(f"{path}/".startswith("/tmp/") for path in (os.getcwd(), sys.prefix, sys.base_prefix)):
        del places["/tmp"]  # we are in there ourselves; what is written to it still stays in the pod
    for place, options in places.items():
        _mount("pod", root + place, "tmpfs", 0, options)
    for device in ("null", "zero", "full", "random", "urandom"):
        open(f"{root}/dev/{device}", "w").close()
        _mount(f"/dev/{device}", f"{root}/dev/{device}", "", _BIND)
    for name, link in {"fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}.items():
        os.symlink(link, f"{root}/dev/{name}")
    os.mkdir(f"{root}/dev/pts")
    _mount("devpts", f"{root}/dev/pts", "devpts", 0, "newinstance,ptmxmode=0666,mode=0620")
    os.symlink("pts/ptmx", f"{root}/dev/ptmx")
    os.mkdir(f"{root}/dev/shm")
    _mount("shm", f"{root}/dev/shm", "tmpfs", 0, "mode=1777,size=64m")
    return root


def _raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP


def _inside(root: str, command: list[str], bare: bool) -> None:
    """The pod's pid 1: sets up what only it can, runs the command as UID, and ends with it."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _mount("proc", f"{root}/proc", "proc", 0)
    cwd = os.getcwd()
    os.chdir(root)
    dot = _text(".")
    syscall(_PIVOT_ROOT, ctypes.addressof(dot), ctypes.addressof(dot))
    syscall(_UMOUNT2, ctypes.addressof(dot), 2)
    os.chdir(cwd)
    _raise_loopback()
    with open("/proc/sys/kernel/ns_last_pid", "w") as last:
        last.write(
            "20000"
        )  # a session with process ids of its own starts at 1: the same number must not be two processes
    program = seccomp.Filter(profile())
    child = os.fork()
    if child == 0:
        os.environ["HOME"] = "/home/user"
        if not bare:
            program.install(listener=False)
        # not identity.drop: a pod's process may still gain privileges by exec
        os.setgroups([])
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        identity.show()
        os.execvp(command[0], command)
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def main(arguments: list[str]) -> int:
    """Run a command in a pod; its exit code."""
    split = arguments.index("--")
    bare, command = "--bare" in arguments[:split], arguments[split + 1 :]
    base = tempfile.mkdtemp(prefix="pod-")
    keeper = os.fork()
    if keeper == 0:
        unshare(NEWNS | NEWNET | NEWIPC | NEWUTS)
        _mount("none", "/", "", _REC | _PRIVATE)
        root = _root(base)
        unshare(NEWPID)
        first = os.fork()
        if first == 0:
            _inside(root, command, bare)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) & 0xFF)
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(keeper, signal.SIGKILL))
    code = os.waitstatus_to_exitcode(os.waitpid(keeper, 0)[1])
    os.rmdir(base)
    return code & 0xFF


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
