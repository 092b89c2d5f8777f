"""Files of events."""

from __future__ import annotations

from pathlib import Path

from pte_tracking.sinks import Artifact, MediaFile, RejectedEventError, RunView, owned_path


def find_file(event: Artifact | MediaFile, run: RunView) -> Path:
    """Return the file or directory of an event.

    Args:
        event: Event with a path.
        run: Run to deliver.

    Returns:
        The absolute path.

    Raises:
        RejectedEventError: If it does not exist in the run directory.
    """
    path = owned_path(run.directory, event.path)
    if path is None:
        raise RejectedEventError(event.seq, f"File {event.path} does not exist in the run directory.")
    return path
