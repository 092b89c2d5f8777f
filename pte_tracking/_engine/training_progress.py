"""Read-only properties of a manager that show the progress of its training."""

from __future__ import annotations

import math

from pte_tracking._engine.stopping import StopCondition
from pte_tracking._interface.extension import Unit
from pte_tracking._interface.progress import Progress


class TrainingProgress:
    """Progress of a training, the same in every front end.

    Attributes:
        updater: Iteration and epoch counters.
    """

    updater: Progress
    _stop: StopCondition

    @property
    def iteration(self) -> int:
        """Number of completed iterations."""
        return self.updater.iteration

    @property
    def iters_per_epoch(self) -> int:
        """Number of iterations per epoch.

        Raises:
            RuntimeError: If the epoch length is not set.
        """
        return self.updater.iters_per_epoch

    @property
    def epoch(self) -> int:
        """Number of completed epochs.

        Raises:
            RuntimeError: If an iteration is complete, and the epoch length is not set.
        """
        return self.updater.epoch

    @property
    def epoch_detail(self) -> float:
        """Number of completed epochs, including the fraction of the current epoch.

        Raises:
            RuntimeError: If an iteration is complete, and the epoch length is not set.
        """
        return self.updater.epoch_detail

    @property
    def length_in_iterations(self) -> int | None:
        """Maximum length of the training in iterations; None if it is unknown or infinite."""
        length = min(map(self._in_iterations, self._stop.training_lengths), default=math.inf)
        return None if math.isinf(length) else math.ceil(length)

    def _in_iterations(self, length: tuple[float, Unit]) -> float:
        number, unit = length
        if unit == "iteration":
            return number
        return number * self.updater.iters_per_epoch if self.updater.has_epoch_length else math.inf

    @property
    def elapsed_time(self) -> float:
        """Training time in seconds, including the time before a resume."""
        return self.updater.elapsed_time

    @property
    def is_before_training(self) -> bool:
        """Whether no iteration is completed."""
        return self.updater.iteration == 0

    @property
    def stop_trigger(self) -> bool:
        """Whether the training should stop, as decided by the stop trigger after the last iteration."""
        return self._stop.should_stop

    @property
    def training_length(self) -> tuple[float, Unit] | None:
        """Maximum length of the training, such as ``(20, "epoch")``; None if unknown."""
        return min(self._stop.training_lengths, key=self._in_iterations, default=None)
