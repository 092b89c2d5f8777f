"""How long a run of ten million events takes to open, to go on from a snapshot, and to be looked at.

``python benchmarks/journal_growth.py`` (``--events N``) writes the journal of such a run, 2.5 GB, and prints seconds.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _measure import Figure

from pte_tracking._runs.run import Run
from pte_tracking._runs.summary import summarize
from pte_tracking._runs.writer import RunPosition
from pte_tracking._store import events
from pte_tracking._store.journal_reader import seq_at
from pte_tracking._store.layout import JOURNAL

VALUES = {f"train/{name}": 0.123456789 for name in ("loss", "accuracy", "norm", "lr", "noise")}


def fill(path: Path, first: int, count: int) -> None:
    """Append rows as a long training would have left them."""
    now = time.time()
    with open(path, "ab") as file:
        for start in range(first, first + count, 10_000):
            file.write(
                b"".join(
                    events.encode(events.Metrics(seq, now, seq, VALUES, seq // 1000, seq / 10))
                    for seq in range(start, min(start + 10_000, first + count))
                )
            )


def tell(what: str, work: Callable[[], object]) -> None:
    start = time.perf_counter()
    work()
    Figure(what, "s", [time.perf_counter() - start], "<= 10").tell()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    count = parser.parse_args().events
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        with Run(directory, sinks=[]) as first:
            first.log_metrics(VALUES, 0)
            started = first.start_time, first.id, first.name
        path = directory / JOURNAL
        fill(path, 4, count)
        before = path.stat().st_size
        fill(path, count + 4, 1000)
        print(f"{count:,} events, {path.stat().st_size:,} bytes")
        point = RunPosition(
            id=started[1], name=started[2], start_time=started[0], step=count, seq=seq_at(path, before), position=before
        )

        def go_on(at: RunPosition | None) -> None:
            run = Run(directory, sinks=[], resume=True)
            run.open(at)
            run.log_metrics(VALUES, count)
            run.close()

        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run = f"a run of {count:,} events"
        tell(f"{run}: opened, one row, closed", lambda: go_on(None))
        tell(f"{run}: gone on from a snapshot 1,000 rows before the end", lambda: go_on(point))
        tell(f"{run}: gone on a second time", lambda: go_on(point))
        tell(f"{run}: looked at (pte-tracking show)", lambda: summarize(directory))
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
        Figure(f"{run}: memory that all of this took", "MB", [grown], "<= 50").tell()


if __name__ == "__main__":
    main()
