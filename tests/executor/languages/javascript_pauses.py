"""How long a cell waits that comes while JavaScript saves its state: `python <this file>`.

Node cannot fork: the thread that runs cells writes the state. Each line is one kind of state: its size in the file, the
shortest and the median wait of five, and the processor time of one saving.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import psutil
from javascript_state import node, run

ROUNDS = 5
LIMIT = 1_000_000_000
ROW = "({ id: i, name: `row ${i}`, tags: ['a', 'b'], value: i * 1.5 })"
STATES = {
    "nothing": "0",
    "typed array": "var x = new Float64Array(1_250_000).fill(1.5); 0",
    "a typed array, ten times": "var x = new Float64Array(12_500_000).fill(1.5); 0",
    "one text": "var x = 'abcdefghij'.repeat(1_000_000).split('').reverse().join(''); 0",
    "numbers in an array": "var x = Array.from({ length: 1_100_000 }, (_, i) => i * 1.5); 0",
    "rows as objects": f"var x = Array.from({{ length: 15_000 }}, (_, i) => {ROW}); 0",
    "rows, ten times": f"var x = Array.from({{ length: 150_000 }}, (_, i) => {ROW}); 0",
    "instances of a class": "class P { constructor(i) { this.i = i; this.s = `p${i}`; } } "
    "var x = Array.from({ length: 100_000 }, (_, i) => new P(i)); 0",
}


def measure(code: str) -> tuple[float, list[float], float]:
    """Megabytes of the state that `code` makes, seconds of each wait, seconds of processor time a saving."""
    with tempfile.TemporaryDirectory() as folder, node(Path(folder), memory_mb=2048) as leader:
        run(leader, code)
        quiet = min(run(leader, "1").seconds for _ in range(10))
        process = psutil.Process(leader.process.pid)
        began = sum(process.cpu_times()[:2])
        waits = []
        target = Path(folder, ".state", "javascript")
        for _ in range(ROUNDS):
            target.unlink(missing_ok=True)
            leader.control.sendall(leader.interpreter.save(".state/javascript", limit=LIMIT) or b"")
            waits.append(run(leader, "1").seconds - quiet)
        spent = (sum(process.cpu_times()[:2]) - began) / ROUNDS
        return target.stat().st_size / 1e6, waits, spent


if __name__ == "__main__":
    for name, code in STATES.items():
        size, waits, spent = measure(code)
        shortest, median = min(waits) * 1e3, statistics.median(waits) * 1e3
        print(
            f"{name:28}{size:8.1f} MB   wait {shortest:7.0f} ms, median {median:7.0f}   processor {spent * 1e3:6.0f} ms"
        )
