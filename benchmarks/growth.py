"""Cost of a row in a long training: row 1,000,000 compared with row 1,000.

``python benchmarks/growth.py [--short N] [--long N] [--rounds N]``

For each extension that processes rows, one training logs a thousand rows and another a million (one row per
iteration). Then both log a hundred rows in turn. Printed are microseconds per row for both and their ratio, the size of
a snapshot without models for both, and the growth of the process memory in bytes per row.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psutil
import torch
from _measure import Figure, format_spread, interleave, ratios

import pte_tracking as pte
from pte_tracking import extensions

KEYS = ["train/loss", "val/loss"]
EACH_ITERATION = (1, "iteration")


def log_and_print() -> list[pte.Extension]:
    return [extensions.LogReport(trigger=EACH_ITERATION), extensions.PrintReport(out=open(os.devnull, "w"))]


CASES: dict[str, Callable[[], Sequence[pte.Extension]]] = {
    "LogReport": lambda: [extensions.LogReport(trigger=EACH_ITERATION)],
    "LogReport and PrintReport": log_and_print,
    "PlotReport": lambda: [extensions.PlotReport(KEYS, trigger=EACH_ITERATION)],
}


def train(manager: pte.ExtensionsManager, rows: int) -> float:
    """Log rows and return the microseconds per row."""
    start = time.perf_counter()
    for i in range(manager.iteration, manager.iteration + rows):
        with manager.run_iteration():
            pte.report({"train/loss": math.exp(-i / 1e5) + (i * 7919 % 1000) / 1e4, "val/loss": math.exp(-i / 2e5)})
    return (time.perf_counter() - start) * 1e6 / rows


def state_bytes(manager: pte.ExtensionsManager) -> int:
    file = io.BytesIO()
    torch.save(manager.state_dict(), file)
    return file.tell()


def used_bytes() -> int:
    return int(psutil.Process().memory_full_info().uss)


def compare(case: str, folder: Path, lengths: tuple[int, int], rounds: int) -> None:
    short, long = lengths
    managers = {
        rows: pte.ExtensionsManager({}, 1, CASES[case](), iters_per_epoch=10**9, out_dir=folder / f"{case} {rows}")
        for rows in lengths
    }
    train(managers[short], short)
    train(managers[long], long // 10)  # fills all bounded buffers
    memory_before = used_bytes()
    train(managers[long], long - long // 10)
    bytes_per_row = (used_bytes() - memory_before) / (long - long // 10)
    times = interleave(rounds, {rows: partial(train, managers[rows], 100) for rows in lengths})
    sizes = [state_bytes(managers[rows]) for rows in lengths]
    for rows in lengths:
        print(f"{case}: row after {rows:,} rows: {format_spread(times[rows])} us")
    print(f"{case}: snapshot without models: {sizes[0]:,} and {sizes[1]:,} bytes")
    Figure(f"{case}: row {long:,}", f"row {short:,}", ratios(times[long], times[short]), "<= 1.1").publish()
    Figure(f"{case}: memory per row", "bytes", [bytes_per_row], "<= 1").publish()
    Figure(f"{case}: snapshot without models", "kB", [sizes[1] / 1000], "<= 100").publish()
    for manager in managers.values():
        manager.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", type=int, default=1_000)
    parser.add_argument("--long", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=51)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            compare(case, Path(folder), (args.short, args.long), args.rounds)


if __name__ == "__main__":
    main()
