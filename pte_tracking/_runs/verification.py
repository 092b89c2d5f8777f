"""Whether a run's files are what they were when they were written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pte_tracking._store import checkpoint_files, events
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.events import Checkpoint
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.status import read_status

_REPLACEMENT_SECONDS = (
    5.0  # seconds from the removal of a snapshot, which may be many files, to the event that tells of it
)


def find_problems(directory: Path) -> Iterator[str]:
    """What is wrong with a run's journal and snapshots, one line each.

    Raises:
        RunNotFoundError: There is no run, or this version cannot read it.
    """
    Manifest.load(directory)
    yield from _find_journal_problems(directory / JOURNAL)
    for checkpoint in list_checkpoints(directory):
        path = directory / checkpoint.path
        problem = checkpoint_files.verify_snapshot(path, checkpoint.sha256)
        if problem and not _is_being_replaced(directory, checkpoint):
            yield f"{path}: {problem}"


def _is_being_replaced(directory: Path, checkpoint: Checkpoint) -> bool:
    """Whether a training that goes on has pruned a snapshot, or saved another in its place, while we looked."""
    deadline = time.monotonic() + _REPLACEMENT_SECONDS
    while checkpoint in list_checkpoints(directory):
        if time.monotonic() > deadline or read_status(directory) != "RUNNING":
            return False
        time.sleep(0.05)
    return True


def _find_journal_problems(path: Path) -> Iterator[str]:
    if not path.exists():
        yield f"{path}: missing"
        return
    seq = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # still being written, or torn by a kill and mended when the run goes on
            try:
                event = events.decode(line)
            except (msgspec.MsgspecError, ValueError) as error:
                yield f"{path}: line {number} is no event: {error}"
                seq += 1
                continue
            if event.seq != seq + 1:
                yield f"{path}: line {number} has seq {event.seq}, expected {seq + 1}"
            seq = event.seq
