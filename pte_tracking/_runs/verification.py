"""Verification of the journal and the snapshots of a run."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from pte_tracking._delivery.sink_entries import build_sink
from pte_tracking._store import checkpoint_files, event_encoding, journal_reader
from pte_tracking._store.checkpoints import list_checkpoints
from pte_tracking._store.events import AnyEvent, Checkpoint
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Manifest, SinkEntry
from pte_tracking._store.secrets import mask_secrets
from pte_tracking._store.status import read_status
from pte_tracking.sinks import Sink, get_sink

#: Maximum time between the deletion of a snapshot, which may consist of many files, and its event.
_REPLACEMENT_SECONDS = 5.0


class Verification(NamedTuple):
    """Result of the verification of a run.

    Attributes:
        problems: One line for each problem, beginning with the path of the file.
        remote: Paths of snapshots that are not in the run directory but in a backend, by key of the sink.
    """

    problems: list[str]
    remote: dict[str, list[str]]


def verify_run(directory: Path) -> Verification:
    """Verify the journal and the snapshots of a run.

    A backend is contacted only if a snapshot is missing in the run directory, which is the case after a resume from a
    mirror: only the selected snapshot was fetched.

    Args:
        directory: Run directory.

    Raises:
        RunNotFoundError: If the directory contains no readable run.
    """
    manifest = Manifest.load(directory)
    problems, missing = list(_find_journal_problems(directory / JOURNAL)), []
    for checkpoint in list_checkpoints(directory):
        path = directory / checkpoint.path
        problem = checkpoint_files.verify_snapshot(path, checkpoint.sha256)
        if problem and not _is_being_replaced(directory, checkpoint):
            if path.exists():
                truncation = checkpoint_files.find_truncation(path, checkpoint.size)
                problems.append(f"{path}: {truncation or problem}")
            else:
                missing.append(checkpoint)
    remote: dict[str, list[str]] = {}
    for entry in manifest.sinks if missing else ():
        try:
            stored = _list_stored(entry, manifest.id)
        except Exception as error:  # of a client library
            cause = mask_secrets(str(error.__cause__ or error))
            problems.append(f"{directory}: the snapshots in {entry.key} cannot be listed: {cause}")
            continue
        if found := [checkpoint for checkpoint in missing if checkpoint.sha256 in stored]:
            remote[entry.key] = [checkpoint.path for checkpoint in found]
            missing = [checkpoint for checkpoint in missing if checkpoint not in found]
    problems += [f"{directory / checkpoint.path}: file not found" for checkpoint in missing]
    return Verification(problems, remote)


def _list_stored(entry: SinkEntry, run_id: str) -> set[str]:
    """Return the digests of the snapshots that a backend contains and that resume() can fetch."""
    if get_sink(entry.name).fetch_snapshot is Sink.fetch_snapshot:
        return set()
    digests: set[str] = set()

    def select_none(checkpoints: Sequence[Checkpoint]) -> Sequence[Checkpoint]:
        digests.update(checkpoint.sha256 for checkpoint in checkpoints)
        return []

    with tempfile.TemporaryDirectory() as target:
        build_sink(entry).fetch_snapshot(run_id, Path(target), select_none)
    return digests


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
