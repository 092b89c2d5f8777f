"""Find run directories."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import ARTIFACTS, DELIVERY, FIGURES, IMAGES, JOURNAL, MANIFEST, MEDIA, PROVENANCE
from pte_tracking._store.manifest import Manifest, RunNotFoundError

_SKIPPED_DIRECTORIES = (ARTIFACTS, DELIVERY, FIGURES, IMAGES, MEDIA, PROVENANCE)


def find_run(directory: Path) -> Manifest:
    """Read the manifest of a run, and check that the run has a journal.

    Args:
        directory: The run directory.

    Returns:
        The manifest.

    Raises:
        RunNotFoundError: If the directory contains no run, a run that this version cannot read, or no event.
        OSError: If a file cannot be read.
    """
    manifest, path = Manifest.load(directory), directory / JOURNAL
    if not path.is_file():
        raise RunNotFoundError(f"{directory}: the run has no journal (the directory contains no file {JOURNAL})")
    if last_event(path)[0] is None:
        raise RunNotFoundError(f"{path}: contains no event. The file is truncated, or another program wrote it.")
    return manifest


def find_runs(directory: Path, on_error: Callable[[OSError], object] | None = None) -> Iterator[Path]:
    """Find the directories of all runs at or below a directory, including archived runs.

    Args:
        directory: The directory, which is searched recursively.
        on_error: Called with the error of each directory that cannot be read. By default, errors are ignored.

    Yields:
        Run directories. Numbers in their names are in numeric order.
    """
    for path, directory_names, file_names in os.walk(directory, onerror=on_error):
        directory_names.sort(key=natural_key)
        if MANIFEST in file_names:
            yield Path(path)
            # These directories contain no other run, but possibly thousands of images.
            directory_names[:] = [name for name in directory_names if name not in _SKIPPED_DIRECTORIES]


def natural_key(name: str) -> list[str | int]:
    """Return a key that sorts a name by its text and the values of its numbers, so that ``r_2`` precedes ``r_10``."""
    return [int(part) if number % 2 else part for number, part in enumerate(re.split(r"(\d+)", name))]
