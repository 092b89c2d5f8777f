"""Registration of the checkpoints that another library writes to the run directory."""

from __future__ import annotations

import logging
import os
import shutil
import stat
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from pte_tracking._runs.live_runs import add_writing_thread
from pte_tracking._runs.run import Run
from pte_tracking._store.checkpoint_files import SNAPSHOT_INDEX, checkpoint_digest, digest_file, write_index
from pte_tracking._store.files import absolute_path, sync_tree
from pte_tracking._store.layout import RESERVED_NAMES

_logger = logging.getLogger("pte_tracking")

#: Name, modification time in nanoseconds, and size in bytes of each file.
_Signature: TypeAlias = tuple[tuple[str, int, int], ...]


class SavedCheckpoints:
    """Checkpoints of a run. Threads flush them to disk and compute their digests.

    Args:
        has_folders: Whether folders of files are registered as well. Their digests are written to ``snapshot.json`` in
            the folder, so it is verified and uploaded like a sharded snapshot. The library has to tolerate this
            file while it deletes the folder.
    """

    def __init__(self, *, has_folders: bool = False) -> None:
        self._has_folders = has_folders
        self._signatures: dict[Path, _Signature] = {}
        self._thread: threading.Thread | None = None
        self._is_omission_logged = False

    def start(self, run: Run, folders: Iterable[str | os.PathLike[str] | None]) -> None:
        """Remember the existing checkpoints, which are not new, and remove those without a file from the run.

        Args:
            run: The run, which was started.
            folders: Directories in which checkpoints are saved. They need not exist.
        """
        _remove_missing(run)
        for folder in folders:
            if folder is not None and os.path.isdir(folder):
                for path in Path(folder).iterdir():
                    self._is_changed(absolute_path(path, run.directory))

    def adopt(self, run: Run, path: str | os.PathLike[str], step: int, epoch: float) -> None:
        """Register the checkpoint of a resume unless it is registered. The process may have been killed before.

        Args:
            run: The run, which was started.
            path: Path of the checkpoint.
            step: Last step that the checkpoint contains.
            epoch: Number of completed epochs.
        """
        self._signatures.pop(absolute_path(path, run.directory), None)
        self.add(run, path, step, epoch, {})

    def add(
        self, run: Run, path: str | os.PathLike[str], step: int, epoch: float | None, values: Mapping[str, Any]
    ) -> None:
        """Register a checkpoint if it is new or was replaced, and the removal of those that were deleted.

        Args:
            run: The run.
            path: Path of the checkpoint, which is completely written.
            step: Last step that the checkpoint contains.
            epoch: Number of completed epochs, or None.
            values: Latest values by key.
        """
        whole = absolute_path(path, run.directory)
        if reason := self._reason_to_omit(run, whole):
            self._log_omission(whole, reason)
        elif self._is_changed(whole):
            arguments = self._thread, run, whole, self._signatures[whole], step, epoch, dict(values)
            self._thread = threading.Thread(target=_register, args=arguments, name="pte_tracking checkpoint")
            self._thread.start()
            add_writing_thread(self._thread, whole)
        else:
            _remove_missing(run)

    def finish(self, run: Run) -> None:
        """Wait until all checkpoints are registered, and remove those without a file."""
        self.join()
        _remove_missing(run)

    def join(self) -> None:
        """Wait until all checkpoints are registered."""
        # The last reference to a run may end in the thread that registered its checkpoint.
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _is_changed(self, path: Path) -> bool:
        """Whether a checkpoint is new or was replaced since the last call."""
        signature = _signature(path)
        if signature is None or self._signatures.get(path) == signature:
            return False
        self._signatures[path] = signature
        return True

    def _reason_to_omit(self, run: Run, path: Path) -> str | None:
        if not _is_inside(path, run.directory):
            return f"is not in the run directory {run.directory}"
        if not path.is_dir():
            return None
        if not self._has_folders:
            return "is a folder"
        nested = [entry.name for entry in path.iterdir() if entry.is_dir()]
        return f"contains the folder {nested[0]!r}" if nested else None

    def _log_omission(self, path: Path, reason: str) -> None:
        if not self._is_omission_logged:
            self._is_omission_logged = True
            _logger.warning(
                "The checkpoint %s is not registered in the run, because it %s. Further ones are not reported.",
                path,
                reason,
            )


def _register(
    earlier: threading.Thread | None,
    run: Run,
    path: Path,
    signature: _Signature,
    step: int,
    epoch: float | None,
    values: dict[str, Any],
) -> None:
    if earlier is not None:
        earlier.join()
    try:
        _remove_missing(run)
        sync_tree(path)
        if path.is_dir():
            write_index(path, {name: digest_file(path / name) for name, _, _ in signature})
        digest = checkpoint_digest(path)
        if _signature(path) != signature:  # pruned meanwhile, or replaced, in which case the next call registers it
            if path.is_dir() and {entry.name for entry in path.iterdir()} == {SNAPSHOT_INDEX}:
                shutil.rmtree(path, ignore_errors=True)
        elif (path, digest.sha256) not in {(run.directory / known.path, known.sha256) for known in run.checkpoints()}:
            run.log_checkpoint(path, step, digest.sha256, digest.size, epoch, values)
    except FileNotFoundError:  # pruned meanwhile
        return
    except Exception as error:  # Training never fails because of tracking.
        _logger.error("%s: the checkpoint %s is not registered: %s", run.directory, path, error)


def _remove_missing(run: Run) -> None:
    for checkpoint in run.checkpoints():
        if not os.path.lexists(run.directory / checkpoint.path):
            run.remove_checkpoint(checkpoint.path, checkpoint.step)


def _is_inside(path: Path, directory: Path) -> bool:
    """Whether a path is in a run directory, except for the files of the run and the archived runs."""
    return directory in path.parents and path.relative_to(directory).parts[0] not in RESERVED_NAMES


def _signature(path: Path) -> _Signature | None:
    """Return the signature of a file or of the files in a folder. None if there are none, or the path is a link."""
    try:
        if path.is_symlink():
            return None
        files = [entry for entry in path.iterdir() if entry.name != SNAPSHOT_INDEX] if path.is_dir() else [path]
        statuses = [(file.name, file.stat()) for file in sorted(files)]
    except OSError:
        return None
    is_complete = all(stat.S_ISREG(status.st_mode) for _, status in statuses)
    return (
        tuple((name, status.st_mtime_ns, status.st_size) for name, status in statuses) or None if is_complete else None
    )
