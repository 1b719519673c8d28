"""Cells: the mix of what clients run, with what must come back."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PYTHON, JAVASCRIPT, BASH = "execute_python_code", "execute_javascript_code", "execute_bash_command"

SHORT = "short"

PLOT = """
import matplotlib.pyplot as plt
plt.figure(figsize=(4, 3))
plt.plot([{a}, {b}, {a} + 1])
plt.title("{a}")
plt.show()
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """A call and what its answer must be: status, words in its text, a picture. `apart` runs in a session of its own,
    because it may cost the variables; any status in `statuses` is right."""

    kind: str
    tool: str
    arguments: dict[str, Any]
    statuses: tuple[str, ...] = ("ok",)
    words: tuple[str, ...] = ()
    picture: bool = False
    apart: bool = False
    expects_error: bool = False


def short(chance: random.Random) -> Cell:
    a, b = chance.randrange(10**6), chance.randrange(10**6)
    return Cell(SHORT, PYTHON, {"code": f"print({a} * {b})"}, words=(str(a * b),))


def javascript(chance: random.Random) -> Cell:
    a = chance.randrange(10**6)
    return Cell(
        "javascript", JAVASCRIPT, {"code": f"console.log([{a}, 1].reduce((x, y) => x + y))"}, words=(str(a + 1),)
    )


def bash(chance: random.Random) -> Cell:
    a = chance.randrange(10**6)
    return Cell("bash", BASH, {"command": f"echo $(({a} + 2))"}, words=(str(a + 2),))


def plotting(chance: random.Random) -> Cell:
    a, b = chance.randrange(10**4), chance.randrange(10**4)
    return Cell("plotting", PYTHON, {"code": PLOT.format(a=a, b=b)}, picture=True)


def file(chance: random.Random) -> Cell:
    a = chance.randrange(10**6)
    name = f"file-{chance.randrange(5)}.txt"
    code = f"open({name!r}, 'w').write('{a}' * 1000)\nprint(len(open({name!r}).read()))"
    return Cell("file", PYTHON, {"code": code}, words=(str(len(str(a)) * 1000),))


def long(chance: random.Random) -> Cell:
    a = chance.randrange(10**6)
    code = f"import time\nfor _ in range(4):\n    time.sleep(0.8)\n    print('still', flush=True)\nprint('end', {a})"
    return Cell("long", PYTHON, {"code": code, "timeout": 60}, words=(f"end {a}",))


def failing(chance: random.Random) -> Cell:
    return Cell(
        "failing",
        PYTHON,
        {"code": "nothing_of_that_name"},
        statuses=("error",),
        words=("NameError",),
        expects_error=True,
    )


def looping(chance: random.Random) -> Cell:
    arguments = {"code": "while True: pass", "timeout": 1}
    return Cell("loop", PYTHON, arguments, statuses=("timeout",), apart=True, expects_error=True)


def flood(chance: random.Random) -> Cell:
    code = "for _ in range(20_000): print('x' * 200)"
    return Cell("flood", PYTHON, {"code": code}, statuses=("ok",), words=("xxx",))


def hog(chance: random.Random) -> Cell:
    code = "held = []\nwhile True: held.append(bytearray(b'x' * (32 << 20)))"
    statuses = ("memory", "error", "crashed", "timeout")
    return Cell("hog", PYTHON, {"code": code, "timeout": 20}, statuses=statuses, apart=True, expects_error=True)


def bomb(chance: random.Random) -> Cell:
    command = "for i in $(seq 300); do sleep 3 & done 2>/dev/null; echo planted"
    statuses = ("ok", "error", "timeout", "crashed", "interrupted")
    return Cell("bomb", BASH, {"command": command, "timeout": 10}, statuses=statuses, apart=True, expects_error=True)


STATEFUL = "stateful"
_MIX: tuple[tuple[Callable[[random.Random], Cell] | str, float], ...] = (
    (short, 40),
    (STATEFUL, 25),
    (javascript, 5),
    (bash, 5),
    (plotting, 6),
    (file, 6),
    (failing, 5),
    (long, 3),
    (looping, 2),
    (flood, 1),
    (hog, 1),
    (bomb, 1),
)


def any_cell(chance: random.Random) -> Cell | None:
    """One by weight; None is the stateful one, which only its client can make."""
    kinds, weights = zip(*_MIX, strict=True)
    kind = chance.choices(kinds, weights)[0]
    return None if isinstance(kind, str) else kind(chance)
