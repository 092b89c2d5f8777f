"""What a plot costs as it grows: the millionth point beside the thousandth, in time, memory and snapshots.

``python benchmarks/plot_growth.py`` prints one line for each length. Every iteration adds a point to two curves; the
picture is drawn as often as PlotReport finds it worth the time.
"""

from __future__ import annotations

import io
import math
import statistics
import tempfile
import time
from collections import deque

import psutil
import torch

import pte_tracking as pte
from pte_tracking import extensions

LENGTHS = (1_000, 10_000, 100_000, 1_000_000)
WINDOW = 500  # iterations that are looked at, up to each length


def main() -> None:
    plot = extensions.PlotReport(["train/loss", "val/loss"], trigger=(1, "iteration"))
    with tempfile.TemporaryDirectory() as folder:
        manager = pte.ExtensionsManager({}, 1, [plot], iters_per_epoch=LENGTHS[-1] + 1, out_dir=folder, sinks=[])
        for length in LENGTHS:
            started = time.perf_counter()
            first = manager.iteration
            spent = deque((iterate(manager, i) for i in range(first, length)), maxlen=WINDOW)
            mean = (time.perf_counter() - started) / (length - first)
            print(
                f"{length:>9,} points: {statistics.median(spent) * 1e6:6.1f} us for a point (median), "
                f"{mean * 1e6:8.1f} us with the drawings, "
                f"state {state_bytes(plot):>7,} bytes, memory {psutil.Process().memory_info().rss / 1e6:6.1f} MB",
                flush=True,
            )
        manager.close()


def iterate(manager: pte.ExtensionsManager, i: int) -> float:
    started = time.perf_counter()
    with manager.run_iteration():
        pte.report({"train/loss": math.exp(-i / 1e5) + (i * 7919 % 1000) / 1e4, "val/loss": math.exp(-i / 2e5)})
    return time.perf_counter() - started


def state_bytes(plot: extensions.PlotReport) -> int:
    file = io.BytesIO()
    torch.save(plot.state_dict(), file)
    return file.tell()


if __name__ == "__main__":
    main()
