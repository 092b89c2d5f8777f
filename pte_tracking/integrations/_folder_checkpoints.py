"""Registration of checkpoint folders that another library writes."""

from __future__ import annotations

import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pte_tracking._runs.run import Run
from pte_tracking._store.checkpoint_files import SNAPSHOT_INDEX, checkpoint_digest, digest_file, write_index
from pte_tracking._store.files import absolute_path, sync_tree

_logger = logging.getLogger("pte_tracking")


class FolderCheckpoints:
    """Checkpoints in folders, whose files are hashed by a thread while the training continues.

    The digests are written to ``snapshot.json`` in the folder, so that the folder is verified and uploaded like a
    sharded snapshot.
    """

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None
        self._notes: set[str] = set()

    def register(self, run: Run, folder: str | os.PathLike[str], step: int, epoch: float | None) -> None:
        """Register a folder in a run, and the removal of those that were deleted.

        Args:
            run: The run. Folders outside of its directory are not registered, which is logged once.
            folder: Folder that is completely written.
            step: Number of completed iterations.
            epoch: Number of completed epochs, or None.
        """
        path = absolute_path(folder, run.directory)
        if run.directory not in path.parents:
            self._note(
                f"{path.parent} is not in the run directory {run.directory}, so the checkpoints there are not "
                "registered in the run. Pass the same directory to both."
            )
            return
        if not path.is_dir():
            return
        self._executor = self._executor or ThreadPoolExecutor(1, "pte_tracking checkpoints")
        self._executor.submit(self._register, run, path, step, epoch, run.latest_values)

    def note_removals(self, run: Run) -> None:
        """Log the removal of registered checkpoints whose folders were deleted."""
        for checkpoint in run.checkpoints():
            if not os.path.lexists(run.directory / checkpoint.path):
                run.remove_checkpoint(checkpoint.path, checkpoint.step)

    def join(self) -> None:
        """Wait until all folders are registered."""
        if self._executor is not None:
            self._executor.shutdown()
            self._executor = None

    def _register(self, run: Run, path: Path, step: int, epoch: float | None, values: dict[str, float]) -> None:
        try:
            self.note_removals(run)
            entries = [entry for entry in path.iterdir() if entry.name != SNAPSHOT_INDEX]
            if nested := [entry.name for entry in entries if not entry.is_file()]:
                self._note(
                    f"{path} contains the folder {nested[0]!r}, so it is not registered in the run. Checkpoints of "
                    "files only are registered."
                )
                return
            sync_tree(path)
            write_index(path, {entry.name: digest_file(entry) for entry in entries})
            if not entries or not all(entry.exists() for entry in entries):  # pruned meanwhile
                shutil.rmtree(path, ignore_errors=True)
                return
            digest = checkpoint_digest(path)
            run.log_checkpoint(path, step, digest.sha256, digest.size, epoch, values)
        except FileNotFoundError:  # pruned meanwhile
            return
        except Exception as error:  # Training never fails because of tracking.
            _logger.error("%s was not registered in the run: %s", path, error)

    def _note(self, message: str) -> None:
        if message not in self._notes:
            self._notes.add(message)
            _logger.warning(message)
