"""Cost of a row of the JSON log in a long run: row 1,000,000 compared with row 1,000.

``python benchmarks/json_growth.py [--small N] [--large N] [--rounds N]``

One run logs a thousand rows and another a million. Then both log a hundred rows in turn. Printed are microseconds per
row for both and their ratio, the memory in bytes per row, the size of the saved cursor, and the seconds to open the
large run and to rewind it by its last rows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

import psutil
from _measure import Figure, format_spread, interleave, ratios

from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.run import Run

VALUES = {f"train/{name}": 0.123456789 for name in ("loss", "accuracy", "norm", "lr", "noise")}


def fill(run: Run, rows: int) -> RunPosition:
    """Log rows and return the position a thousand rows before the last."""
    position = run.position(0)
    for step in range(rows):
        if step == rows - 1000:
            position = run.position(step)
        run.log_metrics(VALUES, step, epoch=step // 100, elapsed_time=step / 10)
    return position


def microseconds(run: Run, steps: Iterator[int]) -> float:
    """Log a hundred rows and return the microseconds per row."""
    first = next(steps)
    start = time.perf_counter()
    for step in range(first, first + 100):
        run.log_metrics(VALUES, step, epoch=step // 100, elapsed_time=step / 10)
    return (time.perf_counter() - start) * 1e4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", type=int, default=1_000)
    parser.add_argument("--large", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=100)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        directories = Path(folder, "small"), Path(folder, "large")
        small, large = map(Run, directories)
        fill(small, args.small)
        memory_before = psutil.Process().memory_info().rss
        position = fill(large, args.large)
        growth = psutil.Process().memory_info().rss - memory_before
        lengths = {small: args.small, large: args.large}
        times = interleave(
            args.rounds, {run: partial(microseconds, run, count(rows, 100)) for run, rows in lengths.items()}
        )
        row_ratios = ratios(times[large], times[small])
        for run, rows in lengths.items():
            run.close()
            print(f"row after {rows:,} rows: {format_spread(times[run])} us")
        low, _, high = statistics.quantiles(row_ratios, n=4)
        print(f"ratio: {format_spread(row_ratios)}, quartiles {low:.3f} to {high:.3f}")
        print(
            f"memory: {growth / args.large:.2f} bytes per row; log: {os.stat(directories[1] / 'log').st_size:,} bytes"
        )
        sizes = [os.stat(directory / "delivery" / "json.json").st_size for directory in directories]
        Figure(f"row {args.large:,} of the JSON log", f"row {args.small:,}", row_ratios, "<= 1.1").publish()
        print(f"saved cursor: {sizes[0]} and {sizes[1]} bytes")
        start = time.perf_counter()
        with Run(directories[1], resume=True):
            pass
        print(f"open and close: {time.perf_counter() - start:.3f} s")
        run = Run(directories[1])
        start = time.perf_counter()
        run.open(position)
        run.rewind()
        print(f"rewind by {1000 + 100 * args.rounds:,} rows: {time.perf_counter() - start:.3f} s")
        run.close()


if __name__ == "__main__":
    main()
