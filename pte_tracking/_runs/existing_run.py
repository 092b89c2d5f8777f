"""Run that a directory contains before it is opened."""

from __future__ import annotations

from pathlib import Path

from pte_tracking._runs.position import RunPosition
from pte_tracking._store.journal_reader import read
from pte_tracking._store.layout import JOURNAL, MANIFEST, PREVIOUS
from pte_tracking._store.manifest import Manifest, RunNotFoundError
from pte_tracking._store.values import to_text


def current_manifest(directory: Path) -> Manifest | None:
    """Return the manifest of the run that a resume continues, or None if there is none.

    Raises:
        RunNotFoundError: If the run in the directory is unreadable.
    """
    try:
        manifest = existing_manifest(directory)
    except RunNotFoundError as error:
        raise RunNotFoundError(f"{error}. Move the run elsewhere or choose another run directory.") from error
    return None if manifest is None or is_archive_incomplete(directory, manifest) else manifest


def read_start_position(directory: Path) -> RunPosition | None:
    """Return the position before the first logged value of the run in a directory, or None if there is no run."""
    manifest = existing_manifest(directory)
    path = directory / JOURNAL
    first = next(read(path), None) if manifest and path.exists() else None
    if not manifest or not first:
        return None
    event, end = first
    return RunPosition(
        id=manifest.id,
        name=manifest.name,
        start_time=manifest.start_time,
        step=0,
        seq=event.seq,
        position=end,
        directory=to_text(str(directory)),
    )


def existing_manifest(directory: Path) -> Manifest | None:
    """Return the manifest of the run in a directory, or None if there is no run.

    Raises:
        RunNotFoundError: If the manifest is unreadable, or missing next to a journal that does not start a run.
    """
    journal = directory / JOURNAL
    if (directory / MANIFEST).exists():
        return Manifest.load(directory)
    if not journal.exists() or not journal.stat().st_size:
        return None
    try:
        return Manifest.load(directory)  # rebuilt from the journal
    except RunNotFoundError:
        raise RunNotFoundError(f"{journal} exists, but {MANIFEST} is missing") from None


def is_archive_incomplete(directory: Path, manifest: Manifest) -> bool:
    """Whether a crash interrupted the archiving of a run."""
    return not (directory / JOURNAL).exists() and (directory / PREVIOUS / manifest.id / JOURNAL).exists()
