"""Throughput of delivery to a TensorBoard event file, compared with EventFileWriter.

``python benchmarks/tensorboard_speed.py [--rows N] [--rounds N]``

Rows have five values. EventFileWriter receives one event per row and is flushed once at the end. The delivery reads the
rows from the journal and saves its cursor after each batch. Printed are rows per second for both and their ratio, and
the seconds to rewind by one percent of the rows. Both run alternately in one process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from _measure import Figure, format_spread, interleave, ratios
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


def create_journal(folder: Path, rows: int) -> tuple[Manifest, Journal]:
    manifest = Manifest("0" * 32, "run", time.time(), [ENTRY])
    manifest.save(folder)
    (folder / DELIVERY).mkdir()
    journal = Journal(folder / JOURNAL)
    journal.append(RunStarted, manifest.id, manifest.name, 1, "host")
    for step in range(1, rows + 1):
        journal.append(Metrics, step, row(step))
    return manifest, journal


def write_bare(rows: int) -> float:
    """Return rows per second."""
    rows_to_write = [row(step) for step in range(1, rows + 1)]
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        writer = EventFileWriter(folder)
        for step, values in enumerate(rows_to_write, 1):
            event = Event(wall_time=start, step=step)
            for key, value in values.items():
                event.summary.value.add(tag=key, simple_value=value)
            writer.add_event(event)
        writer.close()
        return rows / (time.perf_counter() - start)


def deliver(rows: int) -> tuple[float, float]:
    """Return rows per second, and the seconds to rewind by one percent of the rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest, journal = create_journal(folder, rows)
        position = journal.end
        consumer = SinkConsumer(folder, manifest, ENTRY)
        start = time.perf_counter()
        while consumer.deliver_next():
            pass
        speed = rows / (time.perf_counter() - start)
        for step in range(rows, rows + rows // 100):
            journal.append(Metrics, step + 1, row(step + 1))
        while consumer.deliver_next():
            pass
        journal.rewind(position, rows)
        start = time.perf_counter()
        consumer.deliver_next()
        return speed, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    results = interleave(
        args.rounds, {"delivery": lambda: deliver(args.rows), "bare": lambda: (write_bare(args.rows), 0.0)}
    )
    delivery_speeds, bare_speeds = ([speed for speed, _ in rounds] for rounds in results.values())
    print(f"rows per second: delivery {format_spread(delivery_speeds)}, EventFileWriter {format_spread(bare_speeds)}")
    Figure(
        "rows per second to TensorBoard", "EventFileWriter", ratios(delivery_speeds, bare_speeds), ">= 0.9"
    ).publish()
    print(f"rewind of {args.rows:,} rows: {format_spread([rewind for _, rewind in results['delivery']])} s")


if __name__ == "__main__":
    main()
