"""Archive of earlier runs of a directory, in ``previous/``."""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pte_tracking._delivery.shared_process import spawn_delivery
from pte_tracking._delivery.stopping import delivery_stopped
from pte_tracking._delivery.supervisor import is_delivery_enabled
from pte_tracking._platform.files import CAN_MOVE_OPEN_FILES, replace_file, sync_directory
from pte_tracking._runs.directory_lock import DirectoryInUseError
from pte_tracking._runs.existing_run import existing_manifest
from pte_tracking._store import lock
from pte_tracking._store.layout import (
    ARTIFACTS,
    CHECKPOINTS,
    DELIVERY,
    DELIVERY_LOCK,
    FIGURES,
    IMAGES,
    JOURNAL,
    MANIFEST,
    MEDIA,
    PREVIOUS,
    PROVENANCE,
    WRITER_LOCK,
)
from pte_tracking._store.manifest import Manifest
from pte_tracking._store.owned_files import make_owned_directory

#: Files that every run creates at the top level of its directory.
RUN_FILES = frozenset({JOURNAL, CHECKPOINTS, DELIVERY, FIGURES, IMAGES, MEDIA, ARTIFACTS, PROVENANCE, MANIFEST})
#: Stands for the name of a log in a pattern of a sink.
LOG = "{log}"

_logger = logging.getLogger("pte_tracking")


def archive_run(directory: Path) -> None:
    """Move the run in a directory to ``previous/<run id>/``. Other files stay.

    An archiving that a crash interrupted is completed.

    Raises:
        DirectoryInUseError: If a process on another machine delivers the run and does not release it.
        RunNotFoundError: If the run is unreadable.
    """
    manifest = existing_manifest(directory)
    if manifest is None:
        return
    with contextlib.ExitStack() as stack:
        try:
            was_delivering = stack.enter_context(delivery_stopped(directory))
        except lock.LockedError as error:
            raise DirectoryInUseError(
                f"The earlier run in run directory {str(directory)!r} is still delivered by {error.holder}. Stop that "
                "process or choose another run directory."
            ) from None
        target = directory / PREVIOUS / manifest.id
        number = 1
        while (directory / JOURNAL).exists() and (target / JOURNAL).exists():
            number += 1  # the archived run was created again from one of its snapshots
            target = target.with_name(f"{manifest.id}-{number}")
        make_owned_directory(target, directory)
        names = set(_run_files(directory, manifest))
        # The journal is moved first, so that a partly archived run cannot be resumed. The manifest is moved last,
        # because it identifies the directory as a run. A loss of power must not change this order.
        for group in ({JOURNAL}, names - {JOURNAL, MANIFEST}, {MANIFEST}):
            _move(sorted(group & names), directory, target)
    _logger.info(
        "archived the earlier run %r to %s. To continue a run instead, call resume() before the first iteration, for "
        "the archived one with out_dir=%r.",
        *(manifest.name, target, str(target)),
    )
    if was_delivering and is_delivery_enabled():
        spawn_delivery(target)


def _run_files(directory: Path, manifest: Manifest) -> Iterator[str]:
    """Iterate over the names at the top level of a directory that belong to its run."""
    patterns = expand_patterns(manifest.files)
    for name in os.listdir(directory):
        matches_pattern = any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
        if name in RUN_FILES or (matches_pattern and name not in (PREVIOUS, WRITER_LOCK)):
            yield name


def expand_patterns(patterns: Sequence[str]) -> list[str]:
    """Replace ``{log}`` in the patterns of sinks by the other patterns, to which those of all logs belong."""
    plain = [pattern for pattern in patterns if LOG not in pattern]
    return plain + [known.replace(LOG, pattern) for known in patterns if LOG in known for pattern in plain]


def own_names(directory: Path) -> set[str]:
    """Return the names at the top level of a directory that belong to its run, which is archived."""
    manifest = existing_manifest(directory)
    return set() if manifest is None else {*_run_files(directory, manifest), PREVIOUS}


def _move(names: Iterable[str], source: Path, target: Path) -> None:
    """Move files between two directories, so that the moves survive a loss of power."""
    for name in names:
        if name == DELIVERY and not CAN_MOVE_OPEN_FILES:
            _move_delivery(source, target)
        else:
            replace_file(source / name, target / name)
    sync_directory(target)
    sync_directory(source)


def _move_delivery(source: Path, target: Path) -> None:
    """Move the files of the delivery except its lock, which this process has open."""
    (target / DELIVERY).mkdir(exist_ok=True)
    for path in (source / DELIVERY).iterdir():
        if path != source / DELIVERY_LOCK:
            replace_file(path, target / DELIVERY / path.name)
    sync_directory(target / DELIVERY)
