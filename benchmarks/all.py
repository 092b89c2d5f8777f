"""All benchmarks, and one table of their figures at the end: ``python benchmarks/all.py [NAME ...]``."""

from __future__ import annotations

import sys
from pathlib import Path

from _measure import run, spread
from rich.console import Console
from rich.table import Table

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("[!_]*.py") if path.stem != "all")


def main() -> int:
    figures, failed = [], []
    for name in sys.argv[1:] or NAMES:
        print(f"\n== {name}", flush=True)
        try:
            figures += run(str(HERE / f"{name}.py"))
        except RuntimeError as error:  # the others have taken minutes
            failed.append(str(error))
    table = Table("work", "against", "median (lowest to highest)", "wanted", "reached")
    for one in figures:
        table.add_row(one.work, one.against, spread(one.values), one.target, "yes" if one.is_reached else "no")
    Console(width=160).print(table)
    for line in failed:
        print(line, file=sys.stderr)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
