"""How fast rows get into TensorBoard's event file, beside a bare EventFileWriter; and the delivery's memory.

``python benchmarks/tensorboard_speed.py`` prints rows per second and their ratio. Rows have five values. The
bare writer is fed one event for each row, ready in memory, and flushed at the end; the delivery reads the rows
from the journal and saves its position after each batch. Both run in turns in one process; the figure is the
median of the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import Figure
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from pte_tracking.runs.channel import Channel
from pte_tracking.runs.events import Metrics, RunEnded, RunStarted
from pte_tracking.runs.journal import Journal
from pte_tracking.runs.layout import DELIVERY, JOURNAL
from pte_tracking.runs.manifest import Manifest, SinkEntry

ENTRY = SinkEntry("tensorboard", "tensorboard")
DELIVER = (
    "import resource, sys\n"
    "from pathlib import Path\n"
    "from pte_tracking.runs.delivery import deliver\n"
    "deliver(Path(sys.argv[1]))\n"
    "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)\n"
)


def row(step: int) -> dict[str, float]:
    return {
        "train/loss": 1 / step,
        "train/accuracy": 0.5,
        "val/loss": 2 / step,
        "val/accuracy": 0.25,
        "lr": 0.1**step,
    }


def journal(folder: Path, rows: int) -> tuple[Manifest, Journal]:
    manifest = Manifest("0" * 32, "run", time.time(), [ENTRY])
    manifest.save(folder)
    (folder / DELIVERY).mkdir()
    written = Journal(folder / JOURNAL)
    written.append(RunStarted, manifest.id, manifest.name, 1, "host")
    for step in range(1, rows + 1):
        written.append(Metrics, step, row(step))
    return manifest, written


def bare(folder: Path, rows: int) -> float:
    made = [row(step) for step in range(1, rows + 1)]
    start = time.perf_counter()
    writer = EventFileWriter(str(folder))
    for step, values in enumerate(made, 1):
        event = Event(wall_time=start, step=step)
        for key, value in values.items():
            event.summary.value.add(tag=key, simple_value=value)
        writer.add_event(event)
    writer.close()
    return rows / (time.perf_counter() - start)


def delivery(folder: Path, rows: int) -> tuple[float, float]:
    """Rows per second of a delivery, and the seconds of a rewind by a hundredth."""
    manifest, written = journal(folder, rows)
    marks = [written.mark]
    channel = Channel(folder, manifest, ENTRY)
    start = time.perf_counter()
    while channel.pump():
        pass
    speed = rows / (time.perf_counter() - start)
    for step in range(rows, rows + rows // 100):
        written.append(Metrics, step + 1, row(step + 1))
    while channel.pump():
        pass
    written.rewind(marks[0], rows)
    start = time.perf_counter()
    channel.pump()
    return speed, time.perf_counter() - start


def megabytes(rows: int) -> float:
    """The most memory that a delivery process takes."""
    with tempfile.TemporaryDirectory() as folder:
        _, written = journal(Path(folder), rows)
        written.append(RunEnded, "FINISHED")
        told = subprocess.run([sys.executable, "-c", DELIVER, folder], check=True, capture_output=True, text=True)
    return float(told.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    speeds, ratios, rewinds = [], [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            (ours, rewind), theirs = delivery(Path(one), args.rows), bare(Path(two), args.rows)
        speeds.append((ours, theirs))
        ratios.append(ours / theirs)
        rewinds.append(rewind)
    ours, theirs = (statistics.median(column) for column in zip(*speeds, strict=True))
    print(f"rows per second: ours {ours:,.0f}, bare EventFileWriter {theirs:,.0f}")
    print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
    Figure("rows a second to TensorBoard", "bare EventFileWriter", ratios, ">= 0.9").tell()
    print(f"rewind of {args.rows} rows: {statistics.median(rewinds):.3f} s")
    print(f"delivery process: {megabytes(10):.0f} MB for 10 rows, {megabytes(args.rows):.0f} MB for {args.rows}")


if __name__ == "__main__":
    main()
