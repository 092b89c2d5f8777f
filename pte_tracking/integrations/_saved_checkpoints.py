"""Registration of the checkpoints that another library writes to the run directory."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias

from pte_tracking._runs.run import Run
from pte_tracking._store.checkpoint_files import digest_file
from pte_tracking._store.files import absolute_path, sync_tree
from pte_tracking._store.layout import RESERVED_NAMES

_logger = logging.getLogger("pte_tracking")

#: Modification time in nanoseconds and size in bytes.
_Signature: TypeAlias = tuple[int, int]


class SavedCheckpoints:
    """Checkpoint files of a run. A thread flushes them to disk and computes their digests."""

    def __init__(self) -> None:
        self._signatures: dict[Path, _Signature] = {}
        self._executor: ThreadPoolExecutor | None = None
        self._pending: list[Future[None]] = []
        self._is_omission_logged = False

    def start(self, run: Run, folders: Iterable[str | os.PathLike[str] | None]) -> None:
        """Remember the existing files, which are not new checkpoints, and remove the checkpoints without a file.

        Args:
            run: The run, which was started.
            folders: Directories in which checkpoints are saved. They need not exist.
        """
        self._remove_missing(run)
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

    def add(self, run: Run, path: str | os.PathLike[str], step: int, epoch: float, values: Mapping[str, Any]) -> None:
        """Register a checkpoint if it is new or was replaced.

        Args:
            run: The run.
            path: Path of the checkpoint.
            step: Last step that the checkpoint contains.
            epoch: Number of completed epochs.
            values: Latest values by key.
        """
        whole = absolute_path(path, run.directory)
        if not _is_inside(whole, run.directory) or whole.is_dir():
            self._log_omission(run, whole)
        elif self._is_changed(whole):
            self._executor = self._executor or ThreadPoolExecutor(1, "pte_tracking checkpoints")
            signature = self._signatures[whole]
            self._pending.append(self._executor.submit(_register, run, whole, signature, step, epoch, dict(values)))
        self._remove_missing(run)

    def finish(self, run: Run) -> None:
        """Wait until all checkpoints are registered, and remove those without a file."""
        for future in self._pending:
            future.result()
        self._pending.clear()
        self._remove_missing(run)

    def _is_changed(self, path: Path) -> bool:
        """Whether a regular file is new or was replaced since the last call."""
        signature = _signature(path)
        if signature is None or self._signatures.get(path) == signature:
            return False
        self._signatures[path] = signature
        return True

    def _remove_missing(self, run: Run) -> None:
        for checkpoint in run.checkpoints():
            if not (run.directory / checkpoint.path).exists():
                run.remove_checkpoint(checkpoint.path, checkpoint.step)

    def _log_omission(self, run: Run, path: Path) -> None:
        if not self._is_omission_logged:
            self._is_omission_logged = True
            reason = "is a directory" if path.is_dir() else "is not in the run directory"
            _logger.info("%s: checkpoint %s is not registered, because it %s.", run.directory, path, reason)


def _register(run: Run, path: Path, signature: _Signature, step: int, epoch: float, values: dict[str, Any]) -> None:
    try:
        sync_tree(path)
        digest = digest_file(path)
    except FileNotFoundError:  # pruned meanwhile
        return
    except OSError as error:
        _logger.warning("%s: checkpoint %s is not registered: %s", run.directory, path, error)
        return
    known = {(run.directory / checkpoint.path, checkpoint.sha256) for checkpoint in run.checkpoints()}
    # A file that was replaced meanwhile is registered by the next call.
    if _signature(path) == signature and (path, digest.sha256) not in known:
        run.log_checkpoint(path, step, digest.sha256, digest.size, epoch, values)


def _is_inside(path: Path, directory: Path) -> bool:
    """Whether a path is in a run directory, except for the files of the run and the archived runs."""
    return directory in path.parents and path.relative_to(directory).parts[0] not in RESERVED_NAMES


def _signature(path: Path) -> _Signature | None:
    """Return the signature of a file. None if it does not exist, or is a link or a directory."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return (status.st_mtime_ns, status.st_size) if stat.S_ISREG(status.st_mode) else None
