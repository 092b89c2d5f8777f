"""Trigger that fires periodically by time."""

from __future__ import annotations

from typing import Any

from pte_tracking._interface.extension import Manager
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers.interval import exact_fraction


class TimeTrigger(Trigger):
    """Trigger that fires in the first iteration that ends after each multiple of a period.

    The trigger uses the elapsed time of the training (:attr:`~pte_tracking.Manager.elapsed_time`), which includes the
    time before a resume but not the time between two sessions. If an iteration takes several periods, the trigger fires
    once. In distributed training, the clock of rank 0 decides for all ranks.

    Snapshots contain the elapsed time at which the trigger fires next.

    Args:
        period: Length of the interval in seconds, positive and finite.

    Raises:
        TypeError: If ``period`` is not a number.
        ValueError: If ``period`` is not positive and finite.

    Example:
        >>> import time
        >>> import pte_tracking as pte
        >>> from pte_tracking import triggers
        >>> @pte.make_extension(trigger=triggers.TimeTrigger(0.001))
        ... def show(manager):
        ...     print("iteration", manager.iteration)
        >>> with pte.ExtensionsManager({}, 1, [show], iters_per_epoch=2, sinks=[]) as manager:
        ...     for batch in manager.batches(range(2)):
        ...         with manager.run_iteration():
        ...             time.sleep(0.002)
        iteration 1
        iteration 2
    """

    def __init__(self, period: float) -> None:
        exact_fraction("period", period)
        self._period = period
        self._next = period

    def __call__(self, manager: Manager) -> bool:
        elapsed = manager.elapsed_time
        if elapsed < self._next:
            return False
        # An iteration that took several periods fires once.
        self._next = (elapsed // self._period + 1) * self._period
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._next = state["next"]
