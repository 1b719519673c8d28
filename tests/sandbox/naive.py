"""A careless leader, as people write it first: the bare place's, so that attacks on a leader have one to bite.

It believes what comes up, loads what is pickled, follows every link, reads whatever lies there to its end, and hands
its heap, its descriptors and its answering end down. Started anew for each attack, in the folder of the session. A
request comes by standard input; what went wrong goes to standard output, one sentence a line, if it still can.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import json
import os
import pickle
import resource
import signal
import socket
import struct
import sys
import traceback
from typing import Any

from executor.sandbox import seccomp
from executor.sandbox.kernel import PR_SET_PDEATHSIG, prctl

_AFTERWARDS = 2
"""Seconds that collecting may take; whoever needs more hangs."""
_MEMORY = 1 << 30
_HANDLES = 256
# loads the number of the call, asks the leader about number 1000, and allows the rest
_ASKS = struct.pack("=" + "HBBI" * 4, 0x20, 0, 0, 0, 0x15, 0, 1, 1000, 0x06, 0, 0, 0x7FC00000, 0x06, 0, 0, 0x7FFF0000)


def main() -> None:
    """Run one cell, and gather what it left behind."""
    request = json.loads(sys.stdin.readline())
    ours, theirs = socket.socketpair()
    os.open(request["state"], os.O_RDONLY)  # a handle that is left open
    child = os.fork()
    if child == 0:
        _cell(request, theirs)
        return
    theirs.close()
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
    signal.signal(signal.SIGCHLD, _deadline)
    signal.setitimer(signal.ITIMER_REAL, request["timeout"])
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_HANDLES, _HANDLES))
    if request["language"] == "python":
        _listen(ours, request["id"])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    with open(request["output"], "ab") as gathered:
        _gather(".", gathered)
    os.chdir("/")
    _delete(request["folder"])
    print(json.dumps({"status": status}), flush=True)


def _deadline(*_: object) -> None:
    """The cell has ended: what takes long from now on is not its code."""
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(_AFTERWARDS)


def _cell(request: dict[str, Any], theirs: socket.socket) -> None:
    os.setsid()
    fd = os.open(request["output"], os.O_WRONLY | os.O_APPEND)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(theirs.fileno(), 3)
    os.set_inheritable(3, True)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if request["language"] != "python":
        os.execvp(request["command"][0], request["command"])
    # no_new_privs, and a filter whose answering end stays open
    ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
    os.set_inheritable(seccomp.Filter(_ASKS).install(listener=True) or 0, True)
    value, status = None, "ok"
    try:
        value = _run(request["code"])
    except Exception:
        traceback.print_exc()
        status = "error"
    body = json.dumps({"id": request["id"], "event": "finished", "status": status, "value": _pickled(value)}).encode()
    with contextlib.suppress(OSError):
        os.set_blocking(3, True)
        os.write(3, struct.pack(">I", len(body)) + body)


def _run(code: str) -> object:
    """Run the code; the value of its last line where that is an expression."""
    names: dict[str, Any] = {"__name__": "__main__"}
    tree = ast.parse(code)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), names)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), names) if isinstance(last, ast.Expr) else None


def _pickled(value: object) -> str:
    try:
        return pickle.dumps(value).hex()
    except Exception:
        return ""


def _receive(ours: socket.socket, size: int) -> bytes:
    """As many bytes as the other side says that there are, with the handles that it sends."""
    data = b""
    while len(data) < size:
        part, _, _, _ = socket.recv_fds(ours, min(size - len(data), 1 << 16), 253)
        if not data and not part:
            break
        data += part
    return data


def _listen(ours: socket.socket, cell: str) -> None:
    """Take frames, a length and a JSON object each, until the cell says that it has finished."""
    while head := _receive(ours, 4):
        frame = json.loads(_receive(ours, struct.unpack(">I", head)[0]))
        if frame["event"] == "finished":
            if frame["id"] != cell:
                print(f"took a result for {frame['id']}", flush=True)
            if frame.get("value"):
                pickle.loads(bytes.fromhex(frame["value"]))
            return
        if frame["event"] == "ready":
            print("took a cell for a worker that is held", flush=True)
    print("never learned that the cell has finished", flush=True)


def _gather(place: str, gathered: Any) -> None:
    """The start of every file below a folder, wherever links lead."""
    for name in sorted(os.listdir(place)):
        path = f"{place}/{name}"
        gathered.write(json.dumps(path, ensure_ascii=False).encode() + b"\n")
        gathered.flush()
        if os.path.isdir(path):
            _gather(path, gathered)
        else:
            with open(path, "rb") as file:
                gathered.write(file.read()[:4096])
                gathered.flush()


def _delete(folder: str) -> None:
    """Delete a folder and all in it."""
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            _delete(path)
        else:
            os.unlink(path)
    os.rmdir(folder)


if __name__ == "__main__":
    main()
