"""Checkpoints of a run and ``checkpoints.json``, their list for users and scripts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from pte_tracking._store.events import Checkpoint, CheckpointRemoved
from pte_tracking._store.files import write_atomically
from pte_tracking._store.journal_reader import effective_ranges, find_events
from pte_tracking._store.layout import CHECKPOINTS, JOURNAL


def list_checkpoints(directory: Path) -> list[Checkpoint]:
    """Return the checkpoints in the effective history that were not pruned.

    Args:
        directory: Run directory.

    Returns:
        Checkpoints in ascending order of their steps. Empty if the directory contains no run.

    Example:
        >>> import pathlib, tempfile
        >>> from pte_tracking.sinks import list_checkpoints
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     list_checkpoints(pathlib.Path(directory))
        []
    """
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


def rank_by_metric(checkpoints: Sequence[Checkpoint], key: str, mode: Literal["min", "max"]) -> list[Checkpoint]:
    """Return the checkpoints with a finite value of a metric, the best first. Of equal values, the earlier is first.

    Args:
        checkpoints: Checkpoints of a run.
        key: Name of the metric.
        mode: ``"min"`` if the lowest value is the best, ``"max"`` if the highest.
    """
    sign = 1 if mode == "min" else -1
    values = {checkpoint.path: float(checkpoint.values.get(key, math.nan)) for checkpoint in checkpoints}
    finite = [checkpoint for checkpoint in checkpoints if math.isfinite(values[checkpoint.path])]
    return sorted(finite, key=lambda checkpoint: (sign * values[checkpoint.path], checkpoint.step))


def write_checkpoint_list(directory: Path, checkpoints: Iterable[Checkpoint]) -> None:
    """Replace ``checkpoints.json``.

    Args:
        directory: Run directory.
        checkpoints: Checkpoints in the order in which they are listed.
    """
    listed = [msgspec.to_builtins(event) for event in checkpoints]
    data = msgspec.json.format(msgspec.json.encode(listed), indent=2)
    write_atomically(directory / CHECKPOINTS, data + b"\n")
