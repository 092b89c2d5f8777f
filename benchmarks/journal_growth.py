"""Time to open, resume, and summarize a run of ten million events.

``python benchmarks/journal_growth.py [--events N]``

Writes the journal of such a run (2.5 GB) to a temporary directory and prints the seconds of each operation, and the
growth of the peak memory in MB.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from _measure import Figure

from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.run import Run
from pte_tracking._runs.summary import summarize
from pte_tracking._store import event_encoding, events
from pte_tracking._store.journal_reader import seq_at
from pte_tracking._store.layout import JOURNAL

VALUES = {f"train/{name}": 0.123456789 for name in ("loss", "accuracy", "norm", "lr", "noise")}


def fill(path: Path, first: int, num_events: int) -> None:
    """Append rows to a journal without opening the run."""
    now = time.time()
    with open(path, "ab") as file:
        for start in range(first, first + num_events, 10_000):
            file.write(
                b"".join(
                    event_encoding.encode(events.Metrics(seq, now, seq, VALUES, seq // 1000, seq / 10))
                    for seq in range(start, min(start + 10_000, first + num_events))
                )
            )


def measure(name: str, function: Callable[[], object]) -> None:
    start = time.perf_counter()
    function()
    Figure(name, "s", [time.perf_counter() - start], "<= 10").publish()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    num_events = parser.parse_args().events
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "run"
        with Run(directory, sinks=[]) as run:
            run.log_metrics(VALUES, 0)
            identity = run.start_time, run.id, run.name
        path = directory / JOURNAL
        fill(path, 4, num_events)
        size_before = path.stat().st_size
        fill(path, num_events + 4, 1000)
        print(f"{num_events:,} events, {path.stat().st_size:,} bytes")
        position = RunPosition(
            id=identity[1],
            name=identity[2],
            start_time=identity[0],
            step=num_events,
            seq=seq_at(path, size_before),
            position=size_before,
        )

        def resume(position: RunPosition | None) -> None:
            run = Run(directory, sinks=[], resume=True)
            run.open(position)
            run.rewind()
            run.log_metrics(VALUES, num_events)
            run.close()

        peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        label = f"a run of {num_events:,} events"
        measure(f"{label}: open, log one row, close", lambda: resume(None))
        measure(f"{label}: resume from a snapshot 1,000 rows before the end", lambda: resume(position))
        measure(f"{label}: resume again", lambda: resume(position))
        measure(f"{label}: summarize (pte-tracking show)", lambda: summarize(directory))
        growth_megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before) / 1024
        Figure(f"{label}: memory of all these operations", "MB", [growth_megabytes], "<= 50").publish()


if __name__ == "__main__":
    main()
