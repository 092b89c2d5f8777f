"""First batches that were delivered after a snapshot."""

from __future__ import annotations

from pathlib import Path

from pte_tracking._store.events import FirstBatch
from pte_tracking._store.journal_reader import effective_ranges, find_events


def read_first_batches(journal: Path, position: int) -> dict[str, dict[str, tuple[str, int | None]]]:
    """Read the digests of the first batches after a snapshot.

    Args:
        journal: Journal file.
        position: Journal position of the snapshot, in bytes.

    Returns:
        The digests by the name of the loader. Empty if the training ended before it received another batch, or if the
        snapshot is superseded.
    """
    ranges = effective_ranges(journal)
    digests: dict[str, dict[str, tuple[str, int | None]]] = {}
    if any(start <= position <= end for start, end in ranges):
        for start, end in ranges:
            for event, _ in find_events(journal, FirstBatch, max(start, position), end):
                digests.setdefault(event.loader, event.parts)
    return digests
