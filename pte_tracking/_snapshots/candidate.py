"""Snapshots that a training may resume from, and their verification."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pte_tracking._distributed.world import SINGLE_PROCESS, World
from pte_tracking._snapshots.errors import SnapshotError
from pte_tracking._snapshots.file import load
from pte_tracking._snapshots.recorded import explain_difference, find_recorded
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
    """

    path: Path
    sha256: str | None = None
    fetched_to: Path | None = None
    recorded: Checkpoint | None = None

    @classmethod
    def at_path(cls, path: Path, unlisted: Collection[Path] = ()) -> Candidate:
        """Return the snapshot at a path, which has to be the one that its run recorded.

        Args:
            path: Path of the snapshot.
            unlisted: Snapshots that were published just before a crash and are newer than their records.
        """
        recorded = None if path in unlisted else find_recorded(path)
        return cls(path, None if recorded is None else recorded.sha256, recorded=recorded)


def load_candidate(candidate: Candidate, world: World = SINGLE_PROCESS) -> SelectedSnapshot:
    """Verify and read a snapshot.

    Raises:
        SnapshotError: If it is damaged or not a snapshot.
    """
    try:
        state = load(candidate.path, candidate.sha256, world)
    except SnapshotError as error:
        raise explain_difference(error, candidate.recorded) from error.__cause__
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
    call: str = "resume",
    is_outdated: Callable[[], bool] = lambda: False,
) -> SelectedSnapshot | None:
    """Return the first intact snapshot. Damaged ones are reported.

    Args:
        candidates: The snapshots, the preferred one first.
        world: The ranks.
        call: Function of the user, as named in messages.
        is_outdated: Returns whether the candidates were selected from an outdated list. Called after an error.

    Returns:
        The snapshot. None if there is no intact one.

    Raises:
        SnapshotError: If a snapshot cannot be used and the list is outdated.
    """
    is_damaged = False
    warn = _logger.warning if world.rank == 0 else _logger.debug
    for candidate in candidates:
        try:
            selected = load_candidate(candidate, world)
        except SnapshotError as error:
            if is_outdated():
                raise
            warn("%s: skipping unusable snapshot: %s", call, error)
            is_damaged = True
            continue
        if is_damaged:
            warn("%s: using %s instead", call, candidate.path)
        return selected
    return None
