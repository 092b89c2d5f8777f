"""All benchmarks, and one table of their ratios at the end: ``python benchmarks/all.py [NAME ...]``."""

from __future__ import annotations

import sys
from pathlib import Path

from _measure import run, spread
from rich.console import Console
from rich.table import Table

NAMES = ["engine", "peers", "slowdown", "tracking_cost", "json_growth", "plot_growth", "tensorboard_speed"]
NAMES += ["mlflow_speed", "snapshots"]


def main() -> None:
    figures = []
    for name in sys.argv[1:] or NAMES:
        print(f"\n== {name}", flush=True)
        figures += run(str(Path(__file__).with_name(f"{name}.py")))
    table = Table("work", "against", "ratio (lowest to highest)", "target", "reached")
    for one in figures:
        table.add_row(one.work, one.against, spread(one.ratios), one.target, "yes" if one.is_reached else "no")
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
