"""Records of snapshots in the journals of their runs."""

from __future__ import annotations

import os
from pathlib import Path

from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.events import Checkpoint
from pte_tracking._store.journal_reader import find_events
from pte_tracking._store.layout import JOURNAL


def find_recorded(path: Path) -> Checkpoint | None:
    """Return the checkpoint as which a run recorded a snapshot in its directory, also one that was superseded.

    Args:
        path: Path of the snapshot. It may lead through symbolic links, or be one.

    Returns:
        The checkpoint. None if the snapshot is not in a run directory, or if the run recorded no snapshot of this name.
    """
    for whole in (Path(os.path.realpath(path.parent), path.name), Path(os.path.realpath(path))):
        directory = next((parent for parent in whole.parents if (parent / JOURNAL).is_file()), None)
        if directory is None:
            continue
        name = whole.relative_to(directory).as_posix()
        effective = [item for item in list_checkpoints(directory) if item.path == name]
        recorded = effective or [item for item, _ in find_events(directory / JOURNAL, Checkpoint) if item.path == name]
        if recorded:
            return recorded[-1]
    return None


def explain_difference(error: SnapshotError, recorded: Checkpoint | None) -> SnapshotError:
    """Return the error of a snapshot that was chosen by its path, with what to do if it is not the recorded one.

    Args:
        error: The error.
        recorded: The checkpoint as which the run recorded the snapshot. None if no run did.
    """
    if recorded is None:
        return error
    return SnapshotError(
        error.path,
        f"{error.reason}. The run recorded this snapshot at step {recorded.step}. Choose another one, such as "
        "'latest', or restore the file from a copy. To use the file as it is, copy it out of the run directory.",
    )
