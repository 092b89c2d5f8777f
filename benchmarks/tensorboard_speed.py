"""How fast rows get into TensorBoard's event file, beside a bare EventFileWriter.

``python benchmarks/tensorboard_speed.py`` prints rows per second and their ratio. Rows have five values. The
bare writer is fed one event for each row, ready in memory, and flushed at the end; the delivery reads the rows
from the journal and saves its position after each batch. Both run in turns in one process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from _measure import Figure, in_turns, ratios, spread
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from pte_tracking._delivery.consumer import SinkConsumer
from pte_tracking._store.events import Metrics, RunStarted
from pte_tracking._store.journal import Journal
from pte_tracking._store.layout import DELIVERY, JOURNAL
from pte_tracking._store.manifest import Manifest, SinkEntry

ENTRY = SinkEntry("tensorboard", "tensorboard")


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


def bare(rows: int) -> float:
    """Rows per second."""
    made = [row(step) for step in range(1, rows + 1)]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        writer = EventFileWriter(folder)
        for step, values in enumerate(made, 1):
            event = Event(wall_time=start, step=step)
            for key, value in values.items():
                event.summary.value.add(tag=key, simple_value=value)
            writer.add_event(event)
        writer.close()
        return rows / (time.perf_counter() - start)


def delivery(rows: int) -> tuple[float, float]:
    """Rows per second, and the seconds of a rewind by a hundredth."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, written = journal(folder, rows)
        mark = written.end
        channel = SinkConsumer(folder, manifest, ENTRY)
        start = time.perf_counter()
        while channel.deliver_next():
            pass
        speed = rows / (time.perf_counter() - start)
        for step in range(rows, rows + rows // 100):
            written.append(Metrics, step + 1, row(step + 1))
        while channel.deliver_next():
            pass
        written.rewind(mark, rows)
        start = time.perf_counter()
        channel.deliver_next()
        return speed, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    found = in_turns(args.rounds, {"ours": lambda: delivery(args.rows), "bare": lambda: (bare(args.rows), 0.0)})
    ours, theirs = ([speed for speed, _ in side] for side in found.values())
    print(f"rows per second: ours {spread(ours)}, bare EventFileWriter {spread(theirs)}")
    Figure("rows a second to TensorBoard", "bare EventFileWriter", ratios(ours, theirs), ">= 0.9").tell()
    print(f"rewind of {args.rows:,} rows: {spread([rewind for _, rewind in found['ours']])} s")


if __name__ == "__main__":
    main()
