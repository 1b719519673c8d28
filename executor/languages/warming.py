"""What a zygote does before the first fork: imports, the shell, and one turn of everything a first cell pays for."""

from __future__ import annotations

import base64
import gc
import io
import json
import math
import random
from contextlib import redirect_stdout
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt

from executor.languages import copying, digests, figures, surroundings
from executor.languages.cells import Cells
from executor.languages.displays import Displays
from executor.languages.guest import take_keyboard_away
from executor.languages.notebook import Parts
from executor.languages.python import PICTURE_CHARS
from executor.languages.shell import NotebookShell, make_shell
from executor.languages.traceback import cell_name
from executor.languages.variables import Variables

READY_NAMES = {
    "np": np,
    "pd": pd,
    "plt": plt,
    "json": json,
    "math": math,
    "random": random,
    "base64": base64,
    "io": io,
    "datetime": datetime,
    "timedelta": timedelta,
}
"""What guest code finds imported; `datetime` is the class."""


def warm_up() -> Parts:
    """The shell and what goes with it, all loaded and used once. Raises RuntimeError where a thread was left behind."""
    figures.install()
    digests.set_up()
    shell = make_shell(READY_NAMES)
    take_keyboard_away()
    cells, displays = Cells(shell), Displays(shell)
    shell.displays = displays
    figures.on_show = displays.show_figures
    _run_once(shell, cells, displays)
    parts = Parts(shell, cells, displays, Variables(shell.user_ns, shell.user_ns_hidden))
    copying.prepare()
    surroundings.note_defaults()
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    if threads != 1:
        raise RuntimeError(f"{threads} threads run after the preload; a fork needs exactly one.")
    gc.collect()
    gc.freeze()
    return parts


def _run_once(shell: NotebookShell, cells: Cells, displays: Displays) -> None:
    """Run what a first cell would pay for, and leave no trace in the namespace."""
    known = dict(shell.user_ns)
    for code in _WARMING:
        displays.begin("", PICTURE_CHARS)
        try:
            with redirect_stdout(io.StringIO()):
                cells.run(code, 0)
        except ZeroDivisionError as error:
            shell.tracebacks.describe(error, cell_name(0))
        displays.show_figures()
        displays.finish()
    shell.user_ns.clear()
    shell.user_ns.update(known)
    shell.forget()


_WARMING: tuple[str, ...] = (
    "1 + 1",
    "%time _x = 1",
    "async def _f(): return 1",
    "1 / 0",
    "pd.DataFrame({'a': [1, 2.5], 'b': ['x', 'y']})",
    "pd.DataFrame({'a': np.arange(100.0)}).describe()",
    "pd.DataFrame({'a': np.arange(100.0), 'b': 'x'})",
    "np.linspace(0, 1, 5)",
    "_f, _a = plt.subplots(2, 2)\n"
    "_a[0, 0].plot([1, 2, 3], label='x')\n_a[0, 0].legend()\n_a[0, 0].set_title('Title 0123456789')\n"
    "_a[0, 1].bar(['a', 'b'], [1, 2])\n_a[1, 0].imshow(np.random.rand(40, 40))\n_a[1, 1].scatter([1, 2], [3, 4])\n"
    "plt.show()",
    "_f, _a = plt.subplots()\n_a.imshow(np.random.rand(400, 400))\n_f.colorbar(_a.images[0])\n_f",
)
