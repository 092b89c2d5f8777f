"""When a value is the best so far."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers.interval_mean import IntervalMean


class BestValueTrigger(Trigger):
    """Fires at the end of an interval over which the mean of a value was better than ever before. NaN never is.

    Args:
        key: The value's key in the observation.
        compare: Takes the best value so far and a new one, and says whether the new one is better.
        trigger: Fires at the end of an interval.

    Raises:
        TypeError: ``compare`` is no function.
    """

    def __init__(self, key: str, compare: Callable[[float, float], bool], trigger: TriggerLike = (1, "epoch")) -> None:
        if not callable(compare):
            raise TypeError(f"compare: expected a function of the best value and a new one, got {compare!r}")
        self._mean = IntervalMean(key, trigger)
        self._compare = compare
        self._best: float | None = None

    def evaluate(self, manager: Manager) -> bool:
        return self(manager)  # the mean is that of all ranks

    def __call__(self, manager: Manager) -> bool:
        value = self._mean.evaluate(manager)
        # A NaN that came first would stay the best for ever: nothing compares with it.
        if value is None or math.isnan(value) or (self._best is not None and not self._compare(self._best, value)):
            return False
        self._best = value
        return True

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean.state_dict(), "best": self._best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean.load_state_dict(state["mean"])
        self._best = state["best"]


class MaxValueTrigger(BestValueTrigger):
    """Fires at the end of an interval over which the mean of a value was higher than ever before.

    Args:
        key: The value's key in the observation.
        trigger: Fires at the end of an interval.
    """

    def __init__(self, key: str, trigger: TriggerLike = (1, "epoch")) -> None:
        super().__init__(key, operator.lt, trigger)


class MinValueTrigger(BestValueTrigger):
    """Fires at the end of an interval over which the mean of a value was lower than ever before.

    Args:
        key: The value's key in the observation.
        trigger: Fires at the end of an interval.
    """

    def __init__(self, key: str, trigger: TriggerLike = (1, "epoch")) -> None:
        super().__init__(key, operator.gt, trigger)
