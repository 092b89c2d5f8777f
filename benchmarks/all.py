"""Run all benchmarks and print one table of their figures.

``python benchmarks/all.py [NAME ...]`` runs all benchmarks (about 40 minutes), or those with the given names.

The table has one line per figure: the quantity, its baseline (for ratios) or unit, the median with the lowest and the
highest value over the rounds, the target, and whether the median meets the target.
"""

from __future__ import annotations

import sys
from pathlib import Path

from _measure import format_spread, run_benchmark
from rich.console import Console
from rich.table import Table

DIRECTORY = Path(__file__).parent
NAMES = sorted(path.stem for path in DIRECTORY.glob("[!_]*.py") if path.stem != "all")


def main() -> int:
    figures, failures = [], []
    for name in sys.argv[1:] or NAMES:
        print(f"\n== {name}", flush=True)
        try:
            figures += run_benchmark(str(DIRECTORY / f"{name}.py"))
        except RuntimeError as error:  # keep the figures of the other benchmarks
            failures.append(str(error))
    table = Table("Quantity", "Baseline or unit", "Median (lowest to highest)", "Target", "Met")
    for figure in figures:
        table.add_row(
            figure.name,
            figure.baseline,
            format_spread(figure.values),
            figure.target,
            "yes" if figure.is_target_met else "no",
        )
    Console(width=160).print(table)
    for line in failures:
        print(line, file=sys.stderr)
    return len(failures)


if __name__ == "__main__":
    sys.exit(main())
