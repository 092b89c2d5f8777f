"""A run's directory: taken by one writer, and emptied for a new run by moving the earlier one aside, whole."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pte_tracking.runs import courier, lock
from pte_tracking.runs.layout import (
    ARTIFACTS,
    CHECKPOINTS,
    DELIVERY,
    FIGURES,
    IMAGES,
    JOURNAL,
    MANIFEST,
    PREVIOUS,
    WRITER_LOCK,
)
from pte_tracking.runs.manifest import Manifest, NotARun

#: What every run leaves at the top of its directory. The manifest goes last: it is what makes a folder a run.
_OWN_FILES = (JOURNAL, CHECKPOINTS, DELIVERY, FIGURES, IMAGES, ARTIFACTS, MANIFEST)

_logger = logging.getLogger("pte_tracking")


class DirectoryInUse(RuntimeError):
    """Another live process writes the run in this directory."""


def take(directory: Path) -> lock.Lock:
    """Become the directory's writer; it is made if it is not there.

    Raises:
        DirectoryInUse: Another live process is.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        return lock.Lock(directory / WRITER_LOCK)
    except lock.Locked as error:
        raise DirectoryInUse(
            f"out_dir {str(directory)!r} is being written by process {error.holder}; "
            "end that one first, or give another out_dir"
        ) from None


def existing(directory: Path) -> Manifest | None:
    """The run in a directory, if there is one.

    Raises:
        NotARun: There is one that this version cannot read.
    """
    if not (directory / MANIFEST).exists():
        return None
    return Manifest.load(directory)


def move_aside(directory: Path) -> None:
    """Move the run in a directory to ``previous/<run id>/``; what it left there that is not its own stays.

    A killed process may have left the move half done: then it is finished.
    """
    try:
        manifest = existing(directory)
    except NotARun as error:
        raise NotARun(f"{error}. Move it away, or give another out_dir") from error
    if manifest is None:
        return
    was_delivering = courier.stop(directory)
    target = directory / PREVIOUS / manifest.id
    target.mkdir(parents=True, exist_ok=True)
    for pattern in [*manifest.files, *_OWN_FILES]:
        for path in sorted(directory.glob(pattern)):
            os.replace(path, target / path.name)
    _logger.info("the earlier run %s was moved to %s", manifest.name, target)
    if was_delivering:
        courier.start(target)
