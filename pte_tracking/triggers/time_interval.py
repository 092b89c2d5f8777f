"""Every so many seconds."""

from __future__ import annotations

from typing import Any

from pte_tracking._interface.extension import Manager
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers.interval import exact_fraction


class TimeTrigger(Trigger):
    """Fires in the first iteration that ends after each multiple of a period.

    Args:
        period: Seconds; those of the training count, not those between a kill and a resume.
    """

    def __init__(self, period: float) -> None:
        exact_fraction("period", period)
        self._period = period
        self._next = period

    def __call__(self, manager: Manager) -> bool:
        elapsed = manager.elapsed_time
        if elapsed < self._next:
            return False
        # One iteration may have taken longer than several periods: they are not made up for.
        self._next = (elapsed // self._period + 1) * self._period
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._next = state["next"]
