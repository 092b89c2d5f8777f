"""Mean of the metric by which snapshots are ranked."""

from __future__ import annotations

from typing import Any

from pte_tracking._distributed.summary import SharedSummary
from pte_tracking._interface.extension import Manager
from pte_tracking.reporter import DictSummary


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

    def collect(self, manager: Manager) -> None:
        """Add the value of this iteration."""
        if self._is_complete:
            self._summary, self._is_complete = DictSummary(), False
        if self._key in manager.observation:
            self._summary.add({self._key: manager.observation[self._key]})

    def end_interval(self) -> None:
        """End the interval with this iteration. The mean remains available until the next iteration."""
        self._is_complete = True

    def compute(self, manager: Manager) -> dict[str, float]:
        """Return the mean over the values of all ranks by key, or nothing. Call this on every rank."""
        return self._shared.reduce(manager.world, self._summary).compute_mean()

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of an incomplete interval."""
        return {} if self._is_complete or self._summary.is_empty else {"mean": self._summary.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state returned by :meth:`state_dict`."""
        self._summary, self._is_complete = DictSummary(), False
        self._summary.load_state_dict(state.get("mean", {}))
