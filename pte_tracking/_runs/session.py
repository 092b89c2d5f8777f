"""Position, files, and resume of an open run."""

from __future__ import annotations

from typing import Literal

from pte_tracking._runs.base import RunBase
from pte_tracking._runs.null_writer import NullWriter
from pte_tracking._runs.position import RunPosition
from pte_tracking._runs.writer import RunWriter
from pte_tracking._store.events import CheckpointRemoved
from pte_tracking._store.journal_reader import last_event
from pte_tracking._store.layout import JOURNAL
from pte_tracking._store.manifest import Sampling
from pte_tracking._store.status import is_killed
from pte_tracking._store.values import check_step, to_text


class RunSession(RunBase):
    """Base class of :class:`~pte_tracking.Run` with the calls that belong to the whole run."""

    #: Step of media that are logged without one. None before it was read from the journal.
    _last_step: int | None = None

    def resume_at(self, step: int) -> None:
        """Continue the run in the directory after a step, to which another library has restored the training.

        Events of later steps are superseded: metrics, media, and checkpoints. Parameters, tags, artifacts, and datasets
        stay, because they have no step. A value that is logged again for a step up to ``step`` is dropped, so that each
        key has one data point per step. If the directory contains no run, a new run is started. A run that is open
        already, as in a ``with`` block, has to be opened with ``resume=True``. Do nothing on a rank other than 0.

        A snapshot of this package contains a position instead; see :meth:`open`.

        Args:
            step: Last step that the restored training has completed.

        Raises:
            DirectoryInUseError: If another live process writes to the directory.
            RunNotFoundError: If the run in the directory is unreadable.
            RuntimeError: If the run has ended, and the directory contains another run.
            TypeError: If ``step`` is not an integer.
            ValueError: If ``step`` is not in the range of 64-bit integers.

        Example:
            >>> import tempfile
            >>> import pte_tracking as pte
            >>> with tempfile.TemporaryDirectory() as directory:
            ...     with pte.Run(directory) as run:
            ...         for step in (1, 2, 3):
            ...             run.log_metrics({"loss": 1 / step}, step)
            ...     with pte.Run(directory, resume=True) as run:
            ...         run.resume_at(2)
            ...         run.log_metrics({"loss": 0.25}, 3)
            ...     [row.values["loss"] for row in run.rows()]
            [1.0, 0.5, 0.25]
        """
        step = check_step(step)
        with self._lock:
            before = {checkpoint.path: checkpoint.sha256 for checkpoint in self.checkpoints()}
            self._last_step = None
            if isinstance(self._writer, RunWriter | NullWriter):
                self._writer.resume_at(step)
            elif self._claim is not None:
                self._start_after(step)
            else:
                self._open(None, True, after_step=step)
            for checkpoint in self.checkpoints():
                if before.get(checkpoint.path) != checkpoint.sha256:  # The file is that of a later step.
                    self._opened().add(CheckpointRemoved, checkpoint.path, checkpoint.step)

    def finish_complete(self) -> bool:
        """Let the next :meth:`close` end the run as FINISHED, if the process that completed it was killed before.

        Call this after :meth:`open` at the end of a complete training. The parameters of this start are not recorded.

        Returns:
            Whether the run was killed. False on a rank other than 0.
        """
        with self._lock:
            claim = self._claim
            if claim is None or claim.is_new or not is_killed(last_event(self.directory / JOURNAL)[0]):
                return False
            claim.is_reopened = True  # the parameters of this start were not used
            with self._holding_calls():
                self._start(claim)
            if isinstance(self._writer, RunWriter):
                self._writer.replace_end()
            return True

    def position(self, step: int) -> RunPosition:
        """Return the current position of the run, which a snapshot stores.

        Call :meth:`sync` before the snapshot is published, so that the position is durable.

        Args:
            step: Number of completed iterations.

        Raises:
            RuntimeError: If a manager has not opened the run yet, or on a rank other than 0.
        """
        claim = self._claim
        if claim is not None and claim.at:
            directory = claim.at["directory"] if claim.is_new else to_text(str(self.directory))
            return {**claim.at, "step": step, "directory": directory}
        return self._opened().position(step)

    def sync(self) -> None:
        """Flush all logged values to disk. This method may be called while other threads log.

        Raises:
            OSError: If the disk is full or fails.
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        self._opened().sync()

    def register_files(self, pattern: str, *, is_written: bool = False) -> None:
        """Register files at the top level of the directory, so that they are archived with the run.

        Args:
            pattern: Glob relative to the run directory. Only the first part of a path is used.
            is_written: Whether existing files belong to the run. Otherwise, a new run moves them to ``previous/``.

        Raises:
            RuntimeError: If the run has ended, and the directory contains another run.
        """
        self._opened().add_files(pattern, is_written=is_written)

    def set_ranking(self, key: str, mode: Literal["min", "max"]) -> None:
        """Store the metric by which the snapshots of the run are ranked, so that readers can select the best.

        Args:
            key: Name of the metric.
            mode: ``"min"`` if the lowest value is the best, ``"max"`` if the highest.
        """
        self._opened().set_ranking(key, mode)

    def sample_system(self, sampling: Sampling) -> None:
        """Let the delivery process sample the system metrics of this node while this process is alive.

        Do nothing on a rank other than 0, or if ``PTE_TRACKING_DELIVERY`` is ``off``.

        Args:
            sampling: The request.
        """
        self._opened().set_sampling(sampling)
