"""Snapshots that a training may resume from, and their verification."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pte_tracking._distributed.world import SINGLE_PROCESS, World
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load
from pte_tracking._snapshots.recorded import explain_difference, find_recorded
from pte_tracking._store.checkpoint_files import find_truncation
from pte_tracking._store.events import Checkpoint

_logger = logging.getLogger("pte_tracking")


class SelectedSnapshot(NamedTuple):
    """A verified snapshot to resume from.

    Attributes:
        path: Path of the snapshot.
        state: The state in it.
        fetched_to: Temporary directory that it was fetched to. None if it does not come from a backend.
        sha256: Digest against which it was verified. None if its digest was unknown.
    """

    path: Path
    state: dict[str, Any]
    fetched_to: Path | None = None
    sha256: str | None = None

    def clean_up(self) -> None:
        """Delete the temporary directory, if there is one."""
        if self.fetched_to is not None:
            shutil.rmtree(self.fetched_to, ignore_errors=True)


class Candidate(NamedTuple):
    """Snapshot that may be selected.

    Attributes:
        path: Path of the snapshot.
        sha256: Digest against which it is verified. None if its digest is unknown.
        fetched_to: Temporary directory that it was fetched to. None if it does not come from a backend.
        recorded: Record of a snapshot that was chosen by its path. None if no run recorded it.
        size: Recorded size in bytes. None if it is unknown.
    """

    path: Path
    sha256: str | None = None
    fetched_to: Path | None = None
    recorded: Checkpoint | None = None
    size: int | None = None

    @classmethod
    def listed(cls, directory: Path, checkpoint: Checkpoint) -> Candidate:
        """Return the snapshot of a checkpoint in the list of a run.

        Args:
            directory: Run directory.
            checkpoint: The checkpoint.
        """
        return cls(directory / checkpoint.path, checkpoint.sha256, size=checkpoint.size)

    @classmethod
    def at_path(cls, path: Path, unlisted: Collection[Path] = ()) -> Candidate:
        """Return the snapshot at a path, which has to be the one that its run recorded.

        Args:
            path: Path of the snapshot.
            unlisted: Snapshots that were published just before a crash and are newer than their records.
        """
        recorded = None if path in unlisted else find_recorded(path)
        if recorded is None:
            return cls(path)
        return cls(path, recorded.sha256, recorded=recorded, size=recorded.size)


def load_candidate(candidate: Candidate, world: World = SINGLE_PROCESS) -> SelectedSnapshot:
    """Verify and read a snapshot.

    Raises:
        SnapshotError: If it is damaged or not a snapshot.
    """
    try:
        state = load(candidate.path, candidate.sha256, world)
    except SnapshotError as error:
        truncation = None if candidate.size is None else find_truncation(candidate.path, candidate.size)
        problem = SnapshotError(error.path, truncation or error.reason)
        raise explain_difference(problem, candidate.recorded) from error.__cause__
    return SelectedSnapshot(candidate.path, state, candidate.fetched_to, candidate.sha256)


def load_fetched(candidate: Candidate, world: World = SINGLE_PROCESS) -> SelectedSnapshot:
    """Verify and read a snapshot as :func:`load_candidate` does. After an error, its temporary directory is deleted."""
    try:
        return load_candidate(candidate, world)
    except BaseException:
        if world.rank == 0 and candidate.fetched_to is not None:
            shutil.rmtree(candidate.fetched_to, ignore_errors=True)
        raise


def first_intact(
    candidates: Iterable[Candidate],
    world: World = SINGLE_PROCESS,
    is_outdated: Callable[[], bool] = lambda: False,
) -> tuple[SelectedSnapshot | None, list[SnapshotError]]:
    """Return the first intact snapshot, and the problems of those before it.

    Args:
        candidates: The snapshots, the preferred one first.
        world: The ranks.
        is_outdated: Returns whether the candidates were selected from an outdated list. Called after an error.

    Returns:
        The snapshot and the problems. The snapshot is None if there is no intact one.

    Raises:
        SnapshotError: If a snapshot cannot be used and the list is outdated.
    """
    problems: list[SnapshotError] = []
    for candidate in candidates:
        try:
            return load_candidate(candidate, world), problems
        except SnapshotError as error:
            if is_outdated():
                raise
            problems.append(error)
    return None, problems


def report_skipped(
    call: str, problems: Sequence[SnapshotError], selected: SelectedSnapshot | None, remedy: str, rank: int = 0
) -> None:
    """Log in one message which snapshots are skipped, and which one is used instead.

    Args:
        call: Function of the user, as named in messages.
        problems: Problems of the skipped snapshots. Nothing is logged if there are none.
        selected: The snapshot that is used. None if there is no intact one.
        remedy: Sentences about what the user can do.
        rank: Rank of this process. Ranks other than 0 log at level DEBUG.
    """
    if not problems:
        return
    (_logger.debug if rank else _logger.warning)(
        "%s: skipping %d unusable snapshot%s: %s. %s %s",
        call,
        len(problems),
        "" if len(problems) == 1 else "s",
        "; ".join(map(str, problems)),
        "No other one is in the run directory." if selected is None else f"Using {selected.path.name} instead.",
        remedy,
    )
