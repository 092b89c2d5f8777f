"""Find run directories."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import ARTIFACTS, DELIVERY, FIGURES, IMAGES, JOURNAL, MANIFEST
from pte_tracking._store.manifest import Manifest, RunNotFoundError

_SKIPPED_DIRECTORIES = (ARTIFACTS, DELIVERY, FIGURES, IMAGES)


def find_run(directory: Path) -> Manifest:
    """The manifest of a run that has a record.

    Raises:
        RunNotFoundError: There is no run, this version cannot read it, or not one event of it is there.
    """
    manifest, path = Manifest.load(directory), directory / JOURNAL
    if not path.is_file():
        raise RunNotFoundError(f"{directory}: a run without a journal (there is no file {JOURNAL})")
    if last_event(path)[0] is None:
        raise RunNotFoundError(f"{path}: holds no event: cut off at its beginning, or not ours")
    return manifest


def find_runs(directory: Path, on_error: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """The directories of all runs at or below a folder, earlier ones moved aside included.

    Args:
        directory: The folder.
        on_error: Called for each folder that cannot be looked into; by default they are passed over.
    """
    for place, folders, files in os.walk(directory, onerror=on_error):
        folders.sort()
        if MANIFEST in files:
            yield Path(place)
            # A run keeps no other run there, and pictures by the thousand.
            folders[:] = [name for name in folders if name not in _SKIPPED_DIRECTORIES]
