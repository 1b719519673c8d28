"""The same work as a fresh `python` process per call, the way of the well-known recipe."""

import asyncio
import sys

from tests.benchmarks.timing import p50, times

STACK = "import numpy as np, pandas as pd, matplotlib; matplotlib.use('agg'); import matplotlib.pyplot as plt; "


async def measure() -> dict[str, float]:
    """`print(1+1)` and a saved plot (ms), each with the data stack imported first."""

    async def run(code):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", STACK + code, stdout=asyncio.subprocess.PIPE
        )
        await process.communicate()
        assert process.returncode == 0

    plot = "import io; plt.plot([1, 3, 2]); plt.savefig(io.BytesIO(), format='png')"
    return {
        "warm_ms": p50(await times(lambda: run("print(1+1)"), 3)),
        "first_plot_ms": p50(await times(lambda: run(plot), 3)),
    }
