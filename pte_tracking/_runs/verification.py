"""Verification of the journal and the snapshots of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from pte_tracking._store import checkpoint_files, event_encoding, journal_reader
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.events import AnyEvent, Checkpoint
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.status import read_status

#: Maximum time between the deletion of a snapshot, which may consist of many files, and its event.
_REPLACEMENT_SECONDS = 5.0


def find_problems(directory: Path) -> Iterator[str]:
    """Iterate over the problems of a run's journal and snapshots.

    Args:
        directory: Run directory.

    Yields:
        One line for each problem, beginning with the path of the file.

    Raises:
        RunNotFoundError: If the directory contains no readable run.
    """
    Manifest.load(directory)
    yield from _find_journal_problems(directory / JOURNAL)
    for checkpoint in list_checkpoints(directory):
        path = directory / checkpoint.path
        problem = checkpoint_files.verify_snapshot(path, checkpoint.sha256)
        if problem and not _is_being_replaced(directory, checkpoint):
            yield f"{path}: {problem}"


def _is_being_replaced(directory: Path, checkpoint: Checkpoint) -> bool:
    """Whether a running training pruned or replaced a snapshot during its verification."""
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
                return  # still being written, or incomplete after a crash and truncated at the next resume
            try:
                event: AnyEvent | event_encoding.EventHeader = event_encoding.decode(line)
            except (msgspec.MsgspecError, ValueError) as error:
                newer = event_encoding.decode_newer(line)
                if newer is None:
                    yield f"{path}: line {number} is not an event: {error}"
                    seq += 1
                    continue
                journal_reader.warn_newer(path, newer.kind)
                event = newer
            if event.seq != seq + 1:
                yield f"{path}: line {number} has seq {event.seq}, expected {seq + 1}"
            seq = event.seq
