"""Claim a run directory, and prepare it for a run."""

from __future__ import annotations

import dataclasses
import glob
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from pte_tracking._delivery.cursor import expect_delivered
from pte_tracking._delivery.inline import InlineConsumer
from pte_tracking._delivery.sink_entries import add_sinks, build_sink
from pte_tracking._platform.files import replace_file
from pte_tracking._runs.archiving import RUN_FILES, archive_run, expand_patterns, own_names
from pte_tracking._runs.directory_lock import lock_directory
from pte_tracking._runs.existing_run import current_manifest
from pte_tracking._runs.foreign_files import ForeignFiles
from pte_tracking._runs.forking import Fork
from pte_tracking._runs.imported_journal import check_named_files
from pte_tracking._runs.position import RunPosition
from pte_tracking._store import lock
from pte_tracking._store.files import write_atomically
from pte_tracking._store.journal import JournalPosition
from pte_tracking._store.journal_end import check_journal
from pte_tracking._store.layout import (
    ARTIFACTS,
    DELIVERY,
    FIGURES,
    IMAGES,
    JOURNAL,
    MEDIA,
    PROVENANCE,
)
from pte_tracking._store.manifest import Manifest, update_manifest
from pte_tracking._store.owned_files import make_owned_directory
from pte_tracking._store.place import Place
from pte_tracking._store.samples import sample_files
from pte_tracking.sinks import Sink

_logger = logging.getLogger("pte_tracking")


@dataclasses.dataclass
class Claim:
    """Locked run directory. Nothing in it changes before :meth:`prepare`.

    Attributes:
        directory: Run directory.
        lock: Lock of the directory.
        place: Identity of the directory.
        at: Position at which the next iteration continues. None continues at the end of the run.
        manifest: Manifest that the run will have.
        is_new: Whether the directory does not contain the run yet. Another run in it is archived by :meth:`prepare`.
        configure: Adds sinks and files to the manifest of the run.
        journal: Journal to copy if the directory has none.
        is_reopened: Whether the run had ended in this process and keeps its status.
        fork: History of the parent with which the run starts. None unless it is a fork.
        foreign: Files of other programs in the directory. None if the run continues.
    """

    directory: Path
    lock: lock.Lock
    place: Place
    at: RunPosition | None
    manifest: Manifest
    is_new: bool
    configure: Callable[[Manifest], Manifest]
    journal: Path | None = None
    is_reopened: bool = False
    fork: Fork | None = None
    foreign: ForeignFiles | None = None

    @property
    def target(self) -> JournalPosition | None:
        """Position to which the journal is going to be rewound, or None."""
        return JournalPosition(self.at["seq"], self.at["position"]) if self.at else None

    def check_continues(self, ended: Manifest | None) -> None:
        """Release the lock and raise RuntimeError if the directory contains another run than the one that ended."""
        if ended is not None and self.manifest.id != ended.id:
            self.lock.release()
            raise RuntimeError(
                f"The run {ended.name!r} has ended, and {str(self.directory)!r} now contains another run. "
                "Create another Run to log to that run."
            )

    def check_id(self, read_id: str | None) -> None:
        """Log a warning if another ID was read before the directory was locked."""
        if read_id not in (None, self.manifest.id):
            _logger.warning(
                "%s: the run ID %s was read before, but the run is %s. To continue the earlier run, call resume() "
                "before the first iteration.",
                self.directory,
                read_id,
                self.manifest.id,
            )

    def check_group(self, group: str | None) -> None:
        """Log a warning if the run belongs to another group than the one that was passed."""
        if group not in (None, self.manifest.group):
            _logger.warning(
                "%s: group=%r has no effect, because the run belongs to the group %r, which it keeps. To change the "
                "group, start a new run in another directory.",
                self.directory,
                group,
                self.manifest.group,
            )

    def release(self) -> None:
        """Release the lock without changing the run. Inline sinks receive events that a crash kept from them."""
        try:
            if not self.is_new:
                for entry in self.manifest.sinks:
                    if build_sink(entry).inline:
                        InlineConsumer(self.directory, self.manifest, entry, self.place).stop()
        finally:
            self.lock.release()

    def prepare(self) -> None:
        """Archive another run in the directory, and write the manifest and the history of a fork.

        Raises:
            DirectoryInUseError: If a process on another machine delivers the earlier run and does not release it.
            LockedError: If another process is changing the manifest for 5 seconds.
            OSError: If a file cannot be written.
            RuntimeError: If the directory was moved, replaced, or deleted.
        """
        self.place.check()
        if self.is_new:
            archive_run(self.directory)
            if self.at is None or self.fork:  # otherwise, the snapshot may be in the directory
                self.foreign = ForeignFiles(self.directory)
                for pattern in [*sorted(RUN_FILES), *expand_patterns(self.manifest.files)]:
                    self.foreign.move_matching(pattern)
        make_owned_directory(self.directory / DELIVERY, self.directory)
        self.manifest = update_manifest(self.directory, self.configure, self.manifest if self.is_new else None)
        self.is_new = False
        if self.journal and not (self.directory / JOURNAL).exists():
            content = self.journal.read_bytes()
            self._take_media(
                self.journal.parent
            )  # first: a crash in between leaves no journal, so all are fetched again
            write_atomically(self.directory / JOURNAL, content, is_durable=True)
            expect_delivered(self.directory, [entry.key for entry in self.manifest.sinks], len(content))
        if self.fork:
            logs = self.fork.copy_history(self.directory, self.manifest)
            files = [glob.escape(log.split("/")[0]) for log in logs]
            self.manifest = update_manifest(
                self.directory,
                lambda current: msgspec.structs.replace(current, files=list(dict.fromkeys([*current.files, *files]))),
            )
            self.at = None  # the history ends at the position

    def _take_media(self, source: Path) -> None:
        """Move the files that were fetched with the journal into the run directory, unless it has others."""
        if self.directory not in source.parents:
            return
        for name in (FIGURES, IMAGES, MEDIA, ARTIFACTS, PROVENANCE, *sample_files(source)):
            _move_missing(source / name, self.directory / name)


def _move_missing(source: Path, target: Path) -> None:
    """Move a file or directory. The files of an existing directory stay, and those that are missing are added."""
    if not source.exists():
        return
    if not os.path.lexists(target):
        replace_file(source, target)
    elif source.is_dir() and target.is_dir() and not target.is_symlink():
        for entry in source.iterdir():
            _move_missing(entry, target / entry.name)


def claim_directory(
    directory: Path,
    at: RunPosition | None,
    resume: bool,
    *,
    plan: Callable[[], Manifest],
    sinks: Sequence[Sink],
    files: Sequence[str],
    world_size: int,
    group: str | None,
    journal: Path | None,
    fork: Fork | None = None,
) -> Claim:
    """Lock a directory to start or resume its run.

    Args:
        directory: Run directory.
        at: See :meth:`pte_tracking.Run.open`.
        resume: See :meth:`pte_tracking.Run.open`.
        plan: Returns the manifest of a new run.
        sinks: Sinks to add to those of the run.
        files: Patterns of files to add to those of the run.
        world_size: Number of ranks.
        group: Group of the run, which a run that has a group already keeps.
        journal: See :meth:`pte_tracking.Run.open`.
        fork: Parent of a new run. None unless the run is a fork.

    Raises:
        DirectoryInUseError: If another live process writes to the directory.
        RunNotFoundError: If the run in the directory is unreadable.
    """

    def configure(manifest: Manifest) -> Manifest:
        manifest = add_sinks(manifest, sinks)
        return msgspec.structs.replace(
            manifest,
            world_size=world_size,
            files=list(dict.fromkeys([*manifest.files, *files])),
            group=manifest.group or group,
        )

    writer_lock = lock_directory(directory)
    try:
        manifest = current_manifest(directory)
        is_new = fork is not None or manifest is None or not (manifest.id == at["id"] if at else resume)
        if is_new:
            manifest = _new_manifest(plan(), at, fork)
            if journal is not None:
                check_named_files(journal, directory, own_names(directory))
        assert manifest is not None
        manifest = configure(manifest)
        for entry in manifest.sinks:
            build_sink(entry)  # raises before anything is changed
        claim = Claim(directory, writer_lock, Place(directory), at, manifest, is_new, configure, journal, fork=fork)
        if not is_new:
            check_journal(directory / JOURNAL, claim.target)
        return claim
    except BaseException:
        writer_lock.release()
        raise


def _new_manifest(plan: Manifest, at: RunPosition | None, fork: Fork | None) -> Manifest:
    """Return the manifest of a run that the directory does not contain yet."""
    if fork:
        return msgspec.structs.replace(plan, parent=fork.parent)
    if at:
        return msgspec.structs.replace(plan, id=at["id"], name=at["name"], start_time=at["start_time"])
    return plan
