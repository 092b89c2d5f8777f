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
    """Rows per second."""
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
    """Rows per second, and the seconds of a rewind by a hundredth."""
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
    print(f"rows per second: ours {format_spread(delivery_speeds)}, bare EventFileWriter {format_spread(bare_speeds)}")
    Figure(
        "rows a second to TensorBoard", "bare EventFileWriter", ratios(delivery_speeds, bare_speeds), ">= 0.9"
    ).publish()
    print(f"rewind of {args.rows:,} rows: {format_spread([rewind for _, rewind in results['delivery']])} s")


if __name__ == "__main__":
    main()
