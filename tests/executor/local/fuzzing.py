"""Throws frames at the server's end of a leader's line: `python -m tests.executor.local.fuzzing 1000000`."""

import asyncio
import json
import random
import struct
import sys
import time

from executor.local.connection import Connection

KEYS = ["event", "reply", "id", "stream", "text", "output", "result", "limits"]
KEYS += ["replaced", "error", "message", "memory", "file", "size", "path", "status"]
EVENTS = ["ready", "failed", "closed", "usage", "output", "display", "finished", "reply", "", None, 7, [], {}]
RESULT = {
    "status": "ok",
    "stdout": "",
    "stderr": "",
    "return_code": 0,
    "execution_time": 0.1,
    "outputs": [{"data": {"text/plain": "1"}, "picture": None, "is_result": True}],
    "files": [{"path": "a", "size": 1, "modified": 1.0, "change": "new"}],
    "error": {"type": "E", "message": "m", "line": 1, "traceback": "", "hint": ""},
    "violations": [{"rule": "r", "message": "m", "line": 1, "column": 1, "layer": "sandbox"}],
    "truncated": False,
    "notices": ["n"],
    "variables": [{"name": "x", "type": "int", "summary": "= 1", "change": "new"}],
}
PICTURE = {"mime": "image/png", "data": "aGk=", "width": 1, "height": 1, "path": "p", "alt": ""}


class Peer:
    """Stands for the transport: notes that the connection gave up."""

    def __init__(self, connection):
        self.connection = connection
        self.aborted = False

    def write(self, data):
        pass

    def is_closing(self):
        return self.aborted

    def abort(self):
        self.aborted = True


def value(rng, depth=0):
    """Any JSON value, honest or not."""
    kind = rng.randrange(12 if depth < 4 else 8)
    if kind == 8:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 9:
        return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(4))}
    if kind == 10:
        return RESULT
    if kind == 11:
        return PICTURE
    return [None, True, -1, 2**70, 1e308, "", "x\ud800", rng.choice(KEYS)][kind]


def mutated(rng, data):
    """`data` with one thing in it replaced or taken out."""
    copy = json.loads(json.dumps(data))
    place = copy
    while isinstance(place, (dict, list)) and place:
        key = rng.choice(list(place) if isinstance(place, dict) else list(range(len(place))))
        if not isinstance(place[key], (dict, list)) or not place[key] or rng.random() < 0.4:
            if rng.random() < 0.3:
                del place[key]
            else:
                place[key] = value(rng)
            break
        place = place[key]
    return copy


def frame(rng):
    """One frame: honest, nearly honest, made up, or noise."""
    kind = rng.randrange(10)
    if kind == 0:
        return rng.randbytes(rng.randrange(60))
    if kind == 1:
        body = rng.randbytes(rng.randrange(40))
        return struct.pack("!IB", rng.choice([len(body) + 1, 0, 2**32 - 1, 5]), rng.choice(b"JBX")) + body
    if kind == 2:
        return struct.pack("!IBI", 5 + 3, ord("B"), rng.randrange(2**32)) + b"abc"
    if kind == 3:
        message = {rng.choice(KEYS): value(rng) for _ in range(rng.randrange(6))}
    elif kind == 4:
        message = {"event": rng.choice(EVENTS), "id": rng.choice(["run", "other", 5, None]), "memory": value(rng)}
    elif kind == 5:
        message = {"reply": rng.choice([1, 2, -1, "1", None, []]), "error": value(rng), "message": value(rng)}
    elif kind == 6:
        output = {"data": {"text/plain": "1"}, "picture": PICTURE, "is_result": False}
        message = mutated(rng, {"event": "display", "id": "run", "output": output})
    else:
        message = mutated(rng, {"event": "finished", "id": "run", "result": RESULT, "limits": [], "replaced": None})
    body = json.dumps(message).encode()
    return struct.pack("!IB", len(body) + 1, ord("J")) + body


async def fuzz(count, seed=0):
    """Feed `count` frames to connections, a new one whenever one gave up. Returns (frames, connections, seconds)."""
    rng = random.Random(seed)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: None)
    began = time.monotonic()
    connections = 0
    connection = peer = None
    for number in range(count):
        if peer is None or peer.aborted or number % 500 == 0:
            connections += 1
            connection = Connection()
            peer = Peer(connection)
            connection._transport = peer
            connection.ready.add_done_callback(lambda future: future.cancelled() or future.exception())
            connection.start("run", "python", "1", 1.0)
        connection.data_received(frame(rng))
        if peer.aborted:
            connection.connection_lost(None)
            # whoever waits must be told, whatever came
            last = [event async for event in connection.execution("run").follow()][-1]
            assert last.result.status
            assert last.result.session_id == ""
            assert last.result.execution_id == "run"
    return count, connections, time.monotonic() - began


if __name__ == "__main__":
    frames, used, seconds = asyncio.run(fuzz(int(sys.argv[1]), seed=int(time.time())))
    print(f"{frames} frames, {used} connections, {seconds:.1f} s: none crashed or hung it")
