"""Runs every benchmark, prints a table with ratios, and writes bench.json."""

import asyncio
import json
import os
import platform
import sys
from pathlib import Path

from tests.benchmarks import fresh, kernels, mcp_roundtrip, ours, snapshots

ROWS = [
    ("session create, one kept ready, ms", "create_ms", 40, True),
    ("session create, forked on demand, ms", "create_forked_ms", 0, True),
    ("warm 1+1, ms", "warm_ms", 4, True),
    ("first plot, ms", "first_plot_ms", 8, True),
    ("memory of an idle session (PSS), MiB", "idle_pss_mib", 5, True),
    ("executions a second, 8 sessions", "throughput_8", 4, False),
]


async def main() -> int:
    """0 where every floor and limit is met."""
    mine = await ours.measure()
    theirs = await kernels.measure()
    per_call = await fresh.measure()
    figures = {"ours": mine, "ipykernel": theirs, "fresh process": per_call, "mcp": await mcp_roundtrip.measure()}
    figures["snapshots"] = await snapshots.measure()
    figures["machine"] = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load": os.getloadavg()[0],
    }
    missed = 0
    print(f"\n{'':40}{'ours':>10}{'ipykernel':>11}{'better':>9}{'floor':>8}")
    for name, key, floor, smaller in ROWS:
        other = theirs["create_ms" if key == "create_forked_ms" else key]
        ratio = other / mine[key] if smaller else mine[key] / other
        missed += ratio < floor
        print(f"{name:40}{mine[key]:10.2f}{other:11.2f}{ratio:8.1f}x{floor or '-':>7}")
    print(f"{'fresh process per call, print(1+1), ms':40}{'':10}{per_call['warm_ms']:11.2f}")
    print("\nMCP over SSE, ms (median), against a bare echo on the same SDK and transport")
    for name, value in figures["mcp"].items():
        print(f"  {name:38}{value:10.2f}" if isinstance(value, float) else f"  {name:38}{value}")
    print("\nSaved, parked and woken again (median)")
    missed += snapshots.report(figures["snapshots"], theirs["create_ms"])
    rest = {key: round(value, 2) for key, value in mine.items() if key not in {row[1] for row in ROWS}}
    print(f"\nfurther figures of ours: {rest}")
    print(f"machine: {figures['machine']}")
    Path("bench.json").write_text(json.dumps(figures, indent=2))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
