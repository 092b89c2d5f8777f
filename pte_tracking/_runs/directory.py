"""A run's directory: taken by one writer, and emptied for a new run by moving the earlier one aside, whole."""

from __future__ import annotations

import fnmatch
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from pte_tracking._delivery import supervisor
from pte_tracking._delivery.sink_entries import merge_sink_entries
from pte_tracking._runs.writer import RunPosition, RunWriter
from pte_tracking._store import lock
from pte_tracking._store.files import write_atomically
from pte_tracking._store.journal_reader import read
from pte_tracking._store.layout import (
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
from pte_tracking._store.manifest import Manifest, RunNotFoundError, update_manifest
from pte_tracking.sinks import Sink

#: What every run leaves at the top of its directory.
_RUN_FILES = frozenset({JOURNAL, CHECKPOINTS, DELIVERY, FIGURES, IMAGES, ARTIFACTS, MANIFEST})

_logger = logging.getLogger("pte_tracking")


class DirectoryInUseError(RuntimeError):
    """Another live process writes the run in this directory, or another part of this one."""


def lock_directory(directory: Path) -> lock.Lock:
    """Become the directory's writer; it is made if it is not there.

    Raises:
        DirectoryInUseError: Another live process is.
    """
    directory.mkdir(parents=True, exist_ok=True)
    try:
        return lock.Lock(directory / WRITER_LOCK)
    except lock.LockedError as error:
        holder, action = f"process {error.holder}", "end that one first"
        if error.is_here:
            holder, action = "another manager or Run of this process", "call its close() first"
        raise DirectoryInUseError(
            f"out_dir {str(directory)!r} is being written by {holder}; {action}, or give another out_dir"
        ) from None


def open_writer(
    directory: Path,
    at: RunPosition | None,
    resume: bool,
    *,
    name: str | None,
    sinks: Sequence[Sink],
    world_size: int,
    journal: Path | None,
) -> RunWriter:
    """Lock a directory and open its run, after moving an earlier one aside where that is due.

    Args:
        directory: The run's directory.
        at: See :meth:`pte_tracking.Run.open`.
        resume: See :meth:`pte_tracking.Run.open`.
        name: The name of a new run; by default made from the directory's.
        sinks: Sinks to add to those of the run.
        world_size: How many processes train together.
        journal: See :meth:`pte_tracking.Run.open`.

    Raises:
        DirectoryInUseError: Another live process writes there.
    """

    def configure(manifest: Manifest) -> Manifest:
        files = [pattern for sink in sinks for pattern in sink.files]
        return msgspec.structs.replace(
            manifest,
            world_size=world_size,
            sinks=merge_sink_entries(sinks, manifest.sinks),
            files=list(dict.fromkeys([*manifest.files, *files])),
        )

    writer_lock = lock_directory(directory)
    try:
        new_manifest = _prepare_directory(directory, at, resume, name)
        (directory / DELIVERY).mkdir(exist_ok=True)
        manifest = update_manifest(directory, configure, new_manifest)
        if journal and not (directory / JOURNAL).exists():
            write_atomically(directory / JOURNAL, journal.read_bytes())
        return RunWriter(directory, writer_lock, manifest, at)
    except BaseException:
        writer_lock.release()
        raise


def _prepare_directory(directory: Path, at: RunPosition | None, resume: bool, name: str | None) -> Manifest | None:
    """Leave in the directory the run that goes on, and nothing of another one; returns a new run's manifest."""
    manifest = existing_manifest(directory)
    if manifest and not is_archive_incomplete(directory, manifest) and (manifest.id == at["id"] if at else resume):
        return None
    archive_run(directory)
    new_manifest = Manifest.new(directory, at["name"] if at else name)
    return msgspec.structs.replace(new_manifest, id=at["id"], start_time=at["start_time"]) if at else new_manifest


def read_start_position(directory: Path) -> RunPosition | None:
    """The point before anything was logged in the directory's run; None if it holds none."""
    manifest = existing_manifest(directory)
    path = directory / JOURNAL
    first = next(read(path), None) if manifest and path.exists() else None
    if not manifest or not first:
        return None
    event, end = first
    return RunPosition(
        id=manifest.id, name=manifest.name, start_time=manifest.start_time, step=0, seq=event.seq, position=end
    )


def existing_manifest(directory: Path) -> Manifest | None:
    """The run in a directory, if there is one.

    Raises:
        RunNotFoundError: There is one that this version cannot read, or nothing but its journal.
    """
    if (directory / MANIFEST).exists():
        return Manifest.load(directory)
    journal = directory / JOURNAL
    if journal.exists() and journal.stat().st_size:
        raise RunNotFoundError(f"{journal} is that of a run whose {MANIFEST} is missing")
    return None


def is_archive_incomplete(directory: Path, manifest: Manifest) -> bool:
    """Whether a kill has cut short the moving aside of a run."""
    return not (directory / JOURNAL).exists() and (directory / PREVIOUS / manifest.id / JOURNAL).exists()


def archive_run(directory: Path) -> None:
    """Move the run in a directory to ``previous/<run id>/``; what it left there that is not its own stays.

    A killed process may have left the move half done: then it is finished.

    Raises:
        DirectoryInUseError: A process on another machine delivers that run, and does not leave it.
        RunNotFoundError: There is a run that this version cannot read.
    """
    try:
        manifest = existing_manifest(directory)
    except RunNotFoundError as error:
        raise RunNotFoundError(f"{error}. Move it away, or give another out_dir") from error
    if manifest is None:
        return
    try:
        was_delivering = supervisor.stop_delivery(directory)
    except lock.LockedError as error:
        raise DirectoryInUseError(
            f"the earlier run in out_dir {str(directory)!r} is still being delivered by process {error.holder}; end "
            "that one first, or give another out_dir"
        ) from None
    target = directory / PREVIOUS / manifest.id
    number = 1
    while (directory / JOURNAL).exists() and (target / JOURNAL).exists():
        number += 1  # a run that was made here again, from a snapshot of the one that lies there
        target = target.with_name(f"{manifest.id}-{number}")
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted(_run_files(directory, manifest), key=_archive_order):
        os.replace(directory / name, target / name)
    _logger.info("the earlier run %s was moved to %s", manifest.name, target)
    if was_delivering and supervisor.is_delivery_enabled():
        supervisor.spawn_delivery(target)


def _run_files(directory: Path, manifest: Manifest) -> Iterator[str]:
    """The names at the top of a directory that are the run's."""
    for name in os.listdir(directory):
        matches_pattern = any(fnmatch.fnmatchcase(name, pattern) for pattern in manifest.files)
        if name in _RUN_FILES or (matches_pattern and name not in (PREVIOUS, WRITER_LOCK)):
            yield name


def _archive_order(name: str) -> tuple[bool, bool]:
    # The journal goes first, so that nobody goes on with what is half moved. The manifest goes last: it is what makes
    # a folder a run.
    return name == MANIFEST, name != JOURNAL
