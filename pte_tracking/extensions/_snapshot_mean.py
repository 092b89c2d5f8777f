"""Mean of the metric by which snapshots are ranked."""

from __future__ import annotations

import logging
from typing import Any

from pte_tracking._distributed.summary import SharedSummary
from pte_tracking._interface.extension import Manager
from pte_tracking.reporter import DictSummary

_logger = logging.getLogger("pte_tracking")


class SnapshotMean:
    """Mean of one metric over the interval between two firings of the trigger of a snapshot extension.

    The mean is the same as that of a value trigger with this interval. Snapshots at other times, such as after a
    signal, get the mean so far, and the interval continues.

    Args:
        key: Key of the metric in the observation.
    """

    def __init__(self, key: str) -> None:
        self._key = key
        self._summary = DictSummary()
        self._shared = SharedSummary()
        self._is_complete = False
        self._is_reported = False
        #: Iteration of the newest value.
        self._last_iteration: int | None = None
        self._has_warned = False

    @property
    def is_reported(self) -> bool:
        """Whether the metric was ever reported."""
        return self._is_reported

    def collect(self, manager: Manager) -> None:
        """Add the value of this iteration."""
        if self._is_complete:
            self._summary, self._is_complete = DictSummary(), False
        if self._key in manager.observation:
            self._is_reported = True
            self._last_iteration = manager.iteration
            self._summary.add({self._key: manager.observation[self._key]})

    def end_interval(self) -> None:
        """End the interval with this iteration. The mean remains available until the next iteration."""
        self._is_complete = True

    def insert(self, values: dict[str, Any], manager: Manager) -> None:
        """Set the value of the metric to the mean over the values of all ranks. Call this on every rank.

        The value of a reported metric is deleted if it was not reported in the interval, because it belongs to an
        earlier snapshot. A metric that is only logged keeps its latest value.

        Args:
            values: Latest known values by key.
            manager: The manager.
        """
        if self._is_reported:
            values.pop(self._key, None)
        mean = self._shared.reduce(manager.world, self._summary).compute_mean()
        values.update(mean)
        if mean and self._is_complete and manager.world.rank == 0:
            self._check_iteration(manager.iteration)

    def _check_iteration(self, iteration: int) -> None:
        """Log a warning if the newest value of an interval is that of other weights than those of the snapshot."""
        if self._last_iteration in (None, iteration) or self._has_warned:
            return
        self._has_warned = True
        _logger.warning(
            "snapshot: keep_best: the snapshot of iteration %d is ranked by %r of iteration %s, when the model had "
            "other weights. Give the evaluation and the snapshot the same trigger.",
            *(iteration, self._key, self._last_iteration),
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of an incomplete interval, and whether the metric was ever reported."""
        if not self._is_reported:
            return {}
        sums = {} if self._is_complete else self._summary.state_dict()
        return {"key": self._key, "mean": sums, "is_reported": True}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state returned by :meth:`state_dict`. The sums of another metric are dropped."""
        self._summary, self._is_complete = DictSummary(), False
        if state.get("key", self._key) != self._key:
            return
        self._summary.load_state_dict(state.get("mean", {}))
        self._is_reported = bool(state.get("is_reported"))
