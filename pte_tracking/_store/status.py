"""Status of a run, read from its lock and the end of its journal."""

from __future__ import annotations

from pathlib import Path

from pte_tracking._store import lock
from pte_tracking._store.events import RunEnded, Status
from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import JOURNAL, WRITER_LOCK
from pte_tracking._store.manifest import Manifest


def read_status(directory: Path) -> Status:
    """How a run stands: RUNNING while its trainer lives, KILLED if that went without a word.

    FAILED if that was one of several processes: when one of them dies, the launcher ends the others, this one too.
    """
    if lock.is_held(directory / WRITER_LOCK):
        return "RUNNING"
    last, _ = last_event(directory / JOURNAL)
    if isinstance(last, RunEnded):
        return last.status
    return "KILLED" if Manifest.load(directory).world_size == 1 else "FAILED"
