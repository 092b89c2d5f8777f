"""Triggers that fire when a metric improves."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers.interval_mean import IntervalMean


class BestValueTrigger(Trigger):
    """Trigger that fires at the end of an interval whose mean is the best so far.

    The mean of a metric over the interval is compared with the best mean of the earlier intervals. The first mean
    always fires. NaN never fires. An interval in which the metric was not reported is skipped, the first time with a
    warning. In distributed training, the mean is over the values of all ranks.

    Snapshots contain the best mean, the values of the current interval, and the state of the inner trigger.

    Args:
        key: Key of the metric in the observation, such as ``"val/accuracy"``.
        compare: Function that takes the best mean so far and the new mean and returns whether the new mean is better.
        trigger: When an interval ends. Defaults to ``(1, "epoch")``.

    Raises:
        TypeError: If ``compare`` is not callable, or if ``key`` or ``trigger`` has the wrong type.
        ValueError: If ``key`` is empty or ``trigger`` is invalid.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import triggers
        >>> closest_to_one = triggers.BestValueTrigger(
        ...     "ratio", lambda best, new: abs(new - 1) < abs(best - 1), trigger=(1, "iteration")
        ... )
        >>> @pte.make_extension(trigger=closest_to_one)
        ... def show(manager):
        ...     print(manager.observation["ratio"])
        >>> with pte.ExtensionsManager({}, 1, [show], iters_per_epoch=4, sinks=[]) as manager:
        ...     for ratio in manager.batches([3.0, 0.5, 2.0, 1.1]):
        ...         with manager.run_iteration():
        ...             pte.report({"ratio": ratio})
        3.0
        0.5
        1.1
    """

    def __init__(self, key: str, compare: Callable[[float, float], bool], trigger: TriggerLike = (1, "epoch")) -> None:
        if not callable(compare):
            raise TypeError(f"compare: expected a function of the best value and the new value, got {compare!r}")
        self._mean = IntervalMean(type(self).__name__, key, trigger)
        self._compare = compare
        self._best: float | None = None

    @property
    def best_mean(self) -> float | None:
        """Best mean so far. None if no interval with a reported value has ended."""
        return self._best

    def evaluate(self, manager: Manager) -> bool:
        return self(manager)  # The mean is the same on every rank.

    def __call__(self, manager: Manager) -> bool:
        value = self._mean.evaluate(manager)
        # Every comparison with NaN is false, so a NaN as the first mean would remain the best permanently.
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
    """Trigger that fires at the end of an interval whose mean is the highest so far.

    See :class:`BestValueTrigger` for the treatment of missing values and NaN.

    Args:
        key: Key of the metric in the observation, such as ``"val/accuracy"``.
        trigger: When an interval ends. Defaults to ``(1, "epoch")``.

    Raises:
        TypeError: If ``key`` or ``trigger`` has the wrong type.
        ValueError: If ``key`` is empty or ``trigger`` is invalid.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import triggers
        >>> @pte.make_extension(trigger=triggers.MaxValueTrigger("accuracy", trigger=(1, "iteration")))
        ... def show(manager):
        ...     print(manager.observation["accuracy"])
        >>> with pte.ExtensionsManager({}, 1, [show], iters_per_epoch=4, sinks=[]) as manager:
        ...     for accuracy in manager.batches([0.5, 0.7, 0.6, 0.8]):
        ...         with manager.run_iteration():
        ...             pte.report({"accuracy": accuracy})
        0.5
        0.7
        0.8
    """

    def __init__(self, key: str, trigger: TriggerLike = (1, "epoch")) -> None:
        super().__init__(key, operator.lt, trigger)


class MinValueTrigger(BestValueTrigger):
    """Trigger that fires at the end of an interval whose mean is the lowest so far.

    See :class:`BestValueTrigger` for the treatment of missing values and NaN.

    Args:
        key: Key of the metric in the observation, such as ``"val/loss"``.
        trigger: When an interval ends. Defaults to ``(1, "epoch")``.

    Raises:
        TypeError: If ``key`` or ``trigger`` has the wrong type.
        ValueError: If ``key`` is empty or ``trigger`` is invalid.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import triggers
        >>> @pte.make_extension(trigger=triggers.MinValueTrigger("loss", trigger=(1, "iteration")))
        ... def show(manager):
        ...     print(manager.observation["loss"])
        >>> with pte.ExtensionsManager({}, 1, [show], iters_per_epoch=4, sinks=[]) as manager:
        ...     for loss in manager.batches([0.5, 0.3, 0.4, 0.2]):
        ...         with manager.run_iteration():
        ...             pte.report({"loss": loss})
        0.5
        0.3
        0.2
    """

    def __init__(self, key: str, trigger: TriggerLike = (1, "epoch")) -> None:
        super().__init__(key, operator.gt, trigger)
