"""The snapshots of a run that hold, and their list for people and scripts: ``checkpoints.json``."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from pte_tracking._store.events import Checkpoint, CheckpointRemoved
from pte_tracking._store.files import write_atomically
from pte_tracking._store.journal_reader import effective_ranges, find_events
from pte_tracking._store.layout import CHECKPOINTS, JOURNAL


def list_checkpoints(directory: Path) -> list[Checkpoint]:
    """The snapshots in the effective history that were not pruned, by step."""
    path = directory / JOURNAL
    if not path.exists() or not path.stat().st_size:
        return []
    checkpoints: dict[str, Checkpoint] = {}
    for first, last in effective_ranges(path):
        changes: list[Checkpoint | CheckpointRemoved] = [
            event for event, _ in find_events(path, Checkpoint, first, last)
        ]
        changes += [event for event, _ in find_events(path, CheckpointRemoved, first, last)]
        for event in sorted(changes, key=lambda event: event.seq):
            if isinstance(event, Checkpoint):
                checkpoints[event.path] = event
            else:
                checkpoints.pop(event.path, None)
    return sorted(checkpoints.values(), key=lambda event: event.step)


def write_checkpoint_list(directory: Path, checkpoints: Iterable[Checkpoint]) -> None:
    """Bring ``checkpoints.json`` up to date."""
    listed = [msgspec.to_builtins(event) for event in checkpoints]
    data = msgspec.json.format(msgspec.json.encode(listed), indent=2)
    write_atomically(directory / CHECKPOINTS, data + b"\n")
