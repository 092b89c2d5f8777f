"""Values of snapshots that the loop logs with ``run.log_metrics()``, and does not report."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from pte_tracking._interface.extension import Manager
from pte_tracking._store.events import Checkpoint

_logger = logging.getLogger("pte_tracking")


class LoggedValues:
    """Values of the metric by which snapshots are ranked, from the rows of the run.

    A value that is logged at the step of an earlier snapshot belongs to that snapshot, for example if the loop
    evaluates after it has requested the next batch.

    Args:
        key: Key of the metric.

    Attributes:
        key: The same key.
    """

    def __init__(self, key: str) -> None:
        self.key = key
        self._has_warned = False

    def record(self, manager: Manager, checkpoints: Sequence[Checkpoint]) -> None:
        """Record the values that were logged at the steps of snapshots after these were saved.

        Args:
            manager: The manager.
            checkpoints: Checkpoints of the snapshots.
        """
        by_step = manager.run.recent_values(self.key)
        for checkpoint in checkpoints:
            value = by_step.get(checkpoint.step, math.nan)
            if math.isfinite(value) and value != checkpoint.values.get(self.key):
                _record(manager, checkpoint, {**checkpoint.values, self.key: value})

    def is_current(self, manager: Manager, checkpoints: Sequence[Checkpoint]) -> bool:
        """Return whether the newest value belongs to the current iteration.

        Args:
            manager: The manager.
            checkpoints: Checkpoints of earlier snapshots, the newest last.
        """
        newest = next(reversed(manager.run.recent_values(self.key)), None)
        if newest is None or not checkpoints:
            return True
        if any(checkpoint.step == newest for checkpoint in checkpoints):
            return False
        if newest < checkpoints[-1].step and not self._has_warned:
            self._has_warned = True
            _logger.warning(
                "snapshot: keep_best: %r was logged at step %d, before the snapshot at step %d, but counts for the one "
                "at step %d, because no snapshot has this step. Log it at a number of completed iterations, such as "
                "manager.iteration.",
                *(self.key, newest, checkpoints[-1].step, manager.iteration),
            )
        return True


def _record(manager: Manager, checkpoint: Checkpoint, values: Mapping[str, float | str]) -> None:
    """Record a checkpoint again, with other values."""
    path = manager.run.directory / checkpoint.path
    manager.run.log_checkpoint(
        path, checkpoint.step, checkpoint.sha256, checkpoint.size, epoch=checkpoint.epoch, values=values
    )
