"""A small zygote for tests: loads Python once, then forks a worker for every request on the socket it is given.

A request is JSON with `folder`; with it come the worker's control socket and the writing ends of its two pipes.
The answer is the worker's pid. Run as: python python_zygote.py <root of the project> <descriptor>
"""

import array
import json
import os
import socket
import sys

if __name__ == "__main__":
    sys.path.append(sys.argv[1])

    from pathlib import Path

    from executor.languages.python import main, preload

    requests = socket.socket(fileno=int(sys.argv[2]))
    preload()
    inherited = {int(fd) for fd in os.listdir("/proc/self/fd")}
    requests.send(json.dumps({"threads": len(os.listdir("/proc/self/task")), "modules": sorted(sys.modules)}).encode())
    while True:
        data, ancillary, _, _ = requests.recvmsg(1 << 16, socket.CMSG_SPACE(12))
        if not data:
            os._exit(0)
        fds = array.array("i")
        for _, _, payload in ancillary:
            fds.frombytes(payload)
        request = json.loads(data)
        while True:  # workers that have ended
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        pid = os.fork()
        if pid == 0:
            os.setsid()
            control, out, err = fds
            requests.close()
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out, 1)
            os.dup2(err, 2)
            os.close(out)
            os.close(err)
            folder = request["folder"]
            os.environ.clear()
            os.environ.update(
                {"HOME": folder, "PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": folder, "LC_ALL": "C.UTF-8"}
            )
            try:
                main(socket.socket(fileno=control), folder=Path(folder))
            finally:
                os._exit(70)
        for fd in fds:
            os.close(fd)
        requests.send(json.dumps({"pid": pid}).encode())
