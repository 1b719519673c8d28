"""The same work in Jupyter kernels: jupyter_client and ipykernel as their own documentation starts them."""

import asyncio
import time

from jupyter_client.manager import AsyncKernelManager

from tests.benchmarks.timing import p50, p99, pss, times

STACK = "import numpy as np, pandas as pd, matplotlib.pyplot as plt"
PLOT = f"%matplotlib inline\n{STACK}\nplt.plot([1, 3, 2]); plt.show()"


class Kernel:
    """One kernel and its client."""

    async def start(self):
        self.manager = AsyncKernelManager(kernel_name="python3")
        await self.manager.start_kernel()
        self.client = self.manager.client()
        self.client.start_channels()
        await self.client.wait_for_ready(timeout=60)
        return self

    async def run(self, code):
        """Execute and wait for the reply and for the output to be complete, as every front end does."""
        request = self.client.execute(code)
        while True:
            message = await self.client.get_iopub_msg(timeout=60)
            if message["parent_header"].get("msg_id") != request:
                continue
            if message["msg_type"] == "status" and message["content"]["execution_state"] == "idle":
                break
        reply = await self.client.get_shell_msg(timeout=60)
        assert reply["content"]["status"] == "ok", reply

    async def stop(self):
        self.client.stop_channels()
        await self.manager.shutdown_kernel(now=True)

    @property
    def pid(self):
        return self.manager.provisioner.process.pid


async def measure() -> dict[str, float]:
    """The figures of `ours.measure`, where a kernel has them; memory also with the data stack imported."""
    figures: dict[str, float] = {}
    kernels = []

    async def create():
        kernels.append(await Kernel().start())

    found = await times(create, 3)
    figures["create_ms"] = p50(found)
    figures["idle_pss_bare_mib"] = sum(pss(kernel.pid) for kernel in kernels) / len(kernels)
    figures["first_plot_ms"] = p50(await times(lambda: kernels[-1].run(PLOT), 1))
    kernel = kernels[0]
    for _ in range(20):
        await kernel.run("1+1")
    found = await times(lambda: kernel.run("1+1"), 300)
    figures["warm_ms"], figures["warm_p99_ms"] = p50(found), p99(found)
    figures["next_plot_ms"] = p50(await times(lambda: kernels[-1].run("plt.plot([1, 3, 2]); plt.show()"), 8))
    while len(kernels) < 8:
        await create()
    for each in kernels:
        await each.run(STACK)
    figures["idle_pss_mib"] = sum(pss(each.pid) for each in kernels) / len(kernels)

    async def many(each, count):
        for _ in range(count):
            await each.run("1+1")

    began = time.perf_counter()
    await asyncio.gather(*(many(each, 50) for each in kernels))
    figures["throughput_8"] = 8 * 50 / (time.perf_counter() - began)
    await asyncio.gather(*(each.stop() for each in kernels))
    return figures
