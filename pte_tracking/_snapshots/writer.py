"""Write snapshots one after the other, in the background if requested."""

from __future__ import annotations

import logging
import threading
from typing import ClassVar

from pte_tracking._platform.processes import lower_thread_priority
from pte_tracking._runs.live_runs import add_writing_thread
from pte_tracking._snapshots.buffers import Buffers
from pte_tracking._snapshots.job import StateJob

_logger = logging.getLogger("pte_tracking")


class SnapshotWriter:
    """Writer that saves one snapshot at a time. Failures are logged and never stop the training.

    Args:
        asynchronous: Whether to copy each state and write the copy in a separate thread. The memory of the copy is
            reused for the next one.
    """

    #: The writer that last wrote shards. All writers share one process group for shards, so they take turns.
    _shard_group_user: ClassVar[SnapshotWriter | None] = None

    def __init__(self, asynchronous: bool) -> None:
        self._buffers = Buffers() if asynchronous else None
        self._thread: threading.Thread | None = None

    def submit(self, job: StateJob) -> None:
        """Save a state. Call this on every rank of the job.

        The call waits for the previous job, captures and copies the state, and returns. The state is then written in
        another thread, or before the return if the writer is not asynchronous.

        Args:
            job: The job.
        """
        self.wait()
        try:
            job.capture()
            if not job.is_written_here:
                return
            if job.has_shards:
                self._claim_shard_group()
            job.copy(self._buffers)
        except Exception as error:
            _log_failure(job, error)
            return
        if self._buffers is None:
            self._finish(job)
            return
        # A new thread for each job cannot have died of an earlier error, as a waiting thread could. It is not a
        # daemon, so the interpreter does not exit in the middle of a snapshot.
        self._thread = threading.Thread(
            target=self._finish_in_background, args=(job,), name=f"snapshot {job.path.name}"
        )
        self._thread.start()
        add_writing_thread(self._thread, job.path)

    def wait(self) -> None:
        """Wait until the last job is finished."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if SnapshotWriter._shard_group_user is self:
            SnapshotWriter._shard_group_user = None

    def _claim_shard_group(self) -> None:
        if SnapshotWriter._shard_group_user is not None:
            SnapshotWriter._shard_group_user.wait()
        SnapshotWriter._shard_group_user = self

    def _finish_in_background(self, job: StateJob) -> None:
        lower_thread_priority()
        self._finish(job)

    def _finish(self, job: StateJob) -> None:
        try:
            if self._buffers is not None:
                self._buffers.wait()
            digest = job.write()
            if digest is not None:
                job.publish(digest)
        except Exception as error:
            _log_failure(job, error)


def _log_failure(job: StateJob, error: Exception) -> None:
    # A failure that all ranks share is logged as an error once.
    level = logging.ERROR if job.world.rank == 0 else logging.DEBUG
    _logger.log(level, "%s: the snapshot was not saved: %s: %s", job.path, type(error).__name__, error)
