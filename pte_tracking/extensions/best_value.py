"""The best of a value so far, and when it was."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking.triggers.interval_mean import IntervalMean


class BestValue(Extension):
    """Remembers the best mean of a value over an interval.

    It runs after every iteration, to take in what was reported. Whenever its inner trigger fires, the mean since the
    last time is compared with the best so far. It reports nothing: ask :attr:`best_value` and when it was.

    Args:
        key: The value's key.
        compare: Takes the best value so far and a new one, and says whether the new one is better.
        trigger: When to compare (not when the extension itself runs).

    State in snapshots: the best value, when it was, the mean under way and the inner trigger's state.
    """

    default_name = "best_value"

    def __init__(self, key: str, compare: Callable[[float, float], bool], trigger: TriggerLike = (1, "epoch")) -> None:
        if not callable(compare):
            raise TypeError(f"compare: expected a function of the best value and a new one, got {compare!r}")
        self._mean = IntervalMean(key, trigger)
        self._compare = compare
        self._best: tuple[float, int, int | None] | None = None

    @property
    def best_value(self) -> float:
        """The best value; RuntimeError before there is one."""
        return self._get_best()[0]

    @property
    def best_iteration(self) -> int:
        """Iterations done when it came; RuntimeError before there is one."""
        return self._get_best()[1]

    @property
    def best_epoch(self) -> int | None:
        """Epochs done when it came, None where the loop knows none; RuntimeError before there is one."""
        return self._get_best()[2]

    def __call__(self, manager: Manager) -> None:
        value = self._mean.evaluate(manager)
        if value is None or math.isnan(value):
            return
        if self._best is None or self._compare(self._best[0], value):
            self._best = value, manager.iteration, manager.updater.epoch_or_none

    def state_dict(self) -> dict[str, Any]:
        return {"best": self._best, "mean": self._mean.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._best = state["best"]
        self._mean.load_state_dict(state["mean"])

    def _get_best(self) -> tuple[float, int, int | None]:
        if self._best is None:
            raise RuntimeError(f"{self._mean.key!r} has no best value yet: no interval with a value of it is over")
        return self._best


class MaxValue(BestValue):
    """Remembers the highest mean of a value over an interval; see :class:`BestValue`.

    Args:
        key: The value's key.
        trigger: When to compare (not when the extension itself runs).
    """

    default_name = "max_value"

    def __init__(self, key: str, trigger: TriggerLike = (1, "epoch")) -> None:
        super().__init__(key, operator.lt, trigger)


class MinValue(BestValue):
    """Remembers the lowest mean of a value over an interval; see :class:`BestValue`.

    Args:
        key: The value's key.
        trigger: When to compare (not when the extension itself runs).
    """

    default_name = "min_value"

    def __init__(self, key: str, trigger: TriggerLike = (1, "epoch")) -> None:
        super().__init__(key, operator.gt, trigger)
