"""Status of a run, read from its lock and the end of its journal."""

from __future__ import annotations

from pathlib import Path

from pte_tracking._store import lock
from pte_tracking._store.events import AnyEvent, RunEnded, Status
from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import JOURNAL, WRITER_LOCK
from pte_tracking._store.manifest import Manifest


def is_killed(last: AnyEvent | None) -> bool:
    """Return whether a run was killed, judging by the last event of its journal.

    Args:
        last: The event. The process that trained is no longer alive.
    """
    return not isinstance(last, RunEnded) or last.status == "KILLED"


def read_status(directory: Path) -> Status:
    """Determine the status of a run.

    A run whose training process ended without logging its end is KILLED. If several processes trained together, the run
    is FAILED, because the launcher terminates all processes when one of them fails.

    Args:
        directory: The run directory.

    Returns:
        RUNNING while the training process is alive, otherwise the status with which the run ended.

    Raises:
        RunNotFoundError: If the directory contains no run.
    """
    if lock.is_held(directory / WRITER_LOCK):
        return "RUNNING"
    last, _ = last_event(directory / JOURNAL)
    if isinstance(last, RunEnded):
        return last.status
    return "KILLED" if Manifest.load(directory).world_size == 1 else "FAILED"
