"""The mean of one reported value over an interval."""

from __future__ import annotations

import warnings
from typing import Any

from pte_tracking._distributed.summary import SharedSummary
from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking._store.values import check_key
from pte_tracking.reporter import DictSummary
from pte_tracking.triggers._conversion import get_trigger


class IntervalMean:
    """Collects a value in each iteration and gives its mean, over all ranks, when the interval is over.

    An interval without the value gives nothing, and the first such one a warning. (Chainer raises KeyError then; but a
    value may be reported in every other epoch only, and no training should end for a name.)

    Args:
        key: The value's key in the observation.
        trigger: Fires at the end of an interval.
    """

    def __init__(self, key: str, trigger: TriggerLike) -> None:
        self.key = check_key(key)
        self._trigger = get_trigger(trigger)
        self._summary = DictSummary()
        self._shared = SharedSummary()
        self._has_warned = False

    def evaluate(self, manager: Manager) -> float | None:
        """The mean, if an interval has just ended in which the value was reported; to be called once an iteration."""
        if self.key in manager.observation:
            self._summary.add({self.key: manager.observation[self.key]})
        if not self._trigger.evaluate(manager):
            return None
        mean = self._shared.reduce(manager.world, self._summary).compute_mean().get(self.key)
        self._summary = DictSummary()
        if mean is None and not self._has_warned and manager.world.rank == 0:
            self._has_warned = True
            known = ", ".join(map(repr, sorted(manager.observation))) or "nothing"
            warnings.warn(f"{self.key!r} was not reported in a whole interval; reported was {known}", stacklevel=2)
        return mean

    def state_dict(self) -> dict[str, Any]:
        return {"trigger": self._trigger.state_dict(), "summary": self._summary.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._trigger.load_state_dict(state["trigger"])
        self._summary.load_state_dict(state["summary"])
