"""Lock, open, and archive run directories."""

from __future__ import annotations

import contextlib
import dataclasses
import fnmatch
import glob
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from pte_tracking._delivery.shared_process import spawn_delivery
from pte_tracking._delivery.sink_entries import build_sink, merge_sink_entries
from pte_tracking._delivery.stopping import delivery_stopped
from pte_tracking._delivery.supervisor import is_delivery_enabled
from pte_tracking._runs.foreign_files import ForeignFiles
from pte_tracking._runs.forking import Fork
from pte_tracking._runs.imported_journal import check_named_files
from pte_tracking._runs.position import RunPosition
from pte_tracking._store import lock
from pte_tracking._store.files import write_atomically
from pte_tracking._store.journal import JournalPosition
from pte_tracking._store.journal_end import check_journal
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
from pte_tracking._store.manifest import Manifest, RunNotFoundError, check_format, update_manifest
from pte_tracking._store.owned_files import make_owned_directory
from pte_tracking._store.place import Place
from pte_tracking._store.values import to_text
from pte_tracking.sinks import Sink

#: Files that every run creates at the top level of its directory.
_RUN_FILES = frozenset({JOURNAL, CHECKPOINTS, DELIVERY, FIGURES, IMAGES, ARTIFACTS, MANIFEST})

_logger = logging.getLogger("pte_tracking")


class DirectoryInUseError(RuntimeError):
    """Raised when another live process, or another object in this process, writes to the run directory.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory, sinks=["json"]):
        ...         try:
        ...             pte.Run(directory).open()
        ...         except pte.DirectoryInUseError:
        ...             print("in use")
        in use
    """


def lock_directory(directory: Path) -> lock.Lock:
    """Lock a run directory for writing. The directory is created if it does not exist.

    Raises:
        DirectoryInUseError: If another live process holds the lock.
        RunNotFoundError: If the directory contains a run of another format.
    """
    check_format(directory)  # before the lock file is changed
    directory.mkdir(parents=True, exist_ok=True)
    try:
        return lock.Lock(directory / WRITER_LOCK)
    except lock.LockedError as error:
        holder, action = str(error.holder), "Stop that process"
        if error.is_own_process:
            holder, action = "another manager or Run in this process", "Call its close() first"
        raise DirectoryInUseError(
            f"Run directory {str(directory)!r} is in use by {holder}. {action} or choose another run directory."
        ) from None


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
                for pattern in [*sorted(_RUN_FILES), *self.manifest.files]:
                    self.foreign.move_matching(pattern)
        make_owned_directory(self.directory / DELIVERY, self.directory)
        self.manifest = update_manifest(self.directory, self.configure, self.manifest if self.is_new else None)
        self.is_new = False
        if self.journal and not (self.directory / JOURNAL).exists():
            write_atomically(self.directory / JOURNAL, self.journal.read_bytes())
        if self.fork:
            logs = self.fork.copy_history(self.directory, self.manifest)
            files = [glob.escape(log.split("/")[0]) for log in logs]
            self.manifest = update_manifest(
                self.directory,
                lambda current: msgspec.structs.replace(current, files=list(dict.fromkeys([*current.files, *files]))),
            )
            self.at = None  # the history ends at the position


def claim_directory(
    directory: Path,
    at: RunPosition | None,
    resume: bool,
    *,
    plan: Callable[[], Manifest],
    sinks: Sequence[Sink],
    files: Sequence[str],
    world_size: int,
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
        journal: See :meth:`pte_tracking.Run.open`.
        fork: Parent of a new run. None unless the run is a fork.

    Raises:
        DirectoryInUseError: If another live process writes to the directory.
        RunNotFoundError: If the run in the directory is unreadable.
    """

    def configure(manifest: Manifest) -> Manifest:
        added = [*(pattern for sink in sinks for pattern in sink.files), *files]
        return msgspec.structs.replace(
            manifest,
            world_size=world_size,
            sinks=merge_sink_entries(sinks, manifest.sinks),
            files=list(dict.fromkeys([*manifest.files, *added])),
        )

    writer_lock = lock_directory(directory)
    try:
        manifest = current_manifest(directory)
        is_new = fork is not None or manifest is None or not (manifest.id == at["id"] if at else resume)
        if is_new:
            manifest = _new_manifest(plan(), at, fork)
            if journal is not None:
                check_named_files(journal, directory, _own_names(directory))
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
        for name in sorted(_run_files(directory, manifest), key=_archive_order):
            os.replace(directory / name, target / name)
    _logger.info("archived the earlier run %s to %s", manifest.name, target)
    if was_delivering and is_delivery_enabled():
        spawn_delivery(target)


def _run_files(directory: Path, manifest: Manifest) -> Iterator[str]:
    """Iterate over the names at the top level of a directory that belong to its run."""
    for name in os.listdir(directory):
        matches_pattern = any(fnmatch.fnmatchcase(name, pattern) for pattern in manifest.files)
        if name in _RUN_FILES or (matches_pattern and name not in (PREVIOUS, WRITER_LOCK)):
            yield name


def _own_names(directory: Path) -> set[str]:
    """Return the names at the top level of a directory that belong to its run, which is archived."""
    manifest = existing_manifest(directory)
    return set() if manifest is None else {*_run_files(directory, manifest), PREVIOUS}


def _archive_order(name: str) -> tuple[bool, bool]:
    # The journal is moved first, so that a partly archived run cannot be resumed. The manifest is moved last, because
    # it identifies the directory as a run.
    return name == MANIFEST, name != JOURNAL
