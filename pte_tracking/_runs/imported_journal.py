"""Check of a journal that comes with a snapshot from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from pte_tracking._store.events import AnyEvent, Artifact, Checkpoint, CheckpointRemoved, MediaFile, Metrics, Model
from pte_tracking._store.journal_reader import read


def check_named_files(journal: Path, directory: Path, own_names: Collection[str]) -> None:
    """Check that a journal names no file of a directory that another program made.

    The sinks write the logs that the journal names, and retention deletes its snapshots.

    Args:
        journal: Journal that will be copied into the directory.
        directory: Run directory.
        own_names: Names at the top level of the directory that belong to an earlier run, which is archived.

    Raises:
        ValueError: If the journal names such a file. Nothing is changed.
    """
    checked: set[str] = set()
    for event, _ in read(journal):
        name = _named_file(event)
        if name is None or name in checked:
            continue
        checked.add(name)
        path = PurePosixPath(name)
        if path.parts and path.parts[0] not in own_names and os.path.lexists(directory / path):
            raise ValueError(
                f"{journal}: names {name!r}, which exists in {str(directory)!r} and does not belong to a run there. "
                "Move that file or choose another run directory."
            )


def _named_file(event: AnyEvent) -> str | None:
    if isinstance(event, Metrics):
        return event.log
    return event.path if isinstance(event, Artifact | Checkpoint | CheckpointRemoved | MediaFile | Model) else None
