"""Extensions that keep the best value of a metric."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking.triggers.interval_mean import IntervalMean


class BestValue(Extension):
    """Extension that keeps the best mean of a metric.

    The extension runs after every iteration. When its inner trigger fires, the mean of the metric since the last firing
    is compared with the best mean so far. In distributed training, the mean is over the values of all ranks. NaN is
    never the best. An interval in which the metric was not reported is skipped, the first time with a warning.

    The extension reports no values. Read :attr:`best_value`, :attr:`best_iteration`, and :attr:`best_epoch`, for
    example in a function passed to :func:`~pte_tracking.extensions.observe_value`.

    Snapshots contain the best value, its iteration and epoch, the values of the current interval, and the state of the
    inner trigger.

    Args:
        key: Key of the metric in the observation, such as ``"val/accuracy"``.
        compare: Function that takes the best value so far and the new value and returns whether the new value is
            better.
        trigger: Inner trigger, which ends an interval. The extension itself runs in every iteration. Defaults to
            ``(1, "epoch")``.

    Raises:
        TypeError: If ``compare`` is not callable, or if ``key`` or ``trigger`` has the wrong type.
        ValueError: If ``key`` is empty or ``trigger`` is invalid.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> best = extensions.BestValue(
        ...     "ratio", lambda best, new: abs(new - 1) < abs(best - 1), trigger=(1, "iteration")
        ... )
        >>> with pte.ExtensionsManager({}, 1, [best], iters_per_epoch=3, sinks=[]) as manager:
        ...     for ratio in manager.batches([3.0, 1.1, 0.5]):
        ...         with manager.run_iteration():
        ...             pte.report({"ratio": ratio})
        >>> best.best_value, best.best_iteration
        (1.1, 2)
    """

    default_name = "best_value"

    def __init__(self, key: str, compare: Callable[[float, float], bool], trigger: TriggerLike = (1, "epoch")) -> None:
        if not callable(compare):
            raise TypeError(f"compare: expected a function of the best value and the new value, got {compare!r}")
        self._mean = IntervalMean(type(self).__name__, key, trigger)
        self._compare = compare
        self._best: tuple[float, int, int | None] | None = None

    @property
    def best_value(self) -> float:
        """Best interval mean.

        Raises:
            RuntimeError: If no interval with a reported value has ended.
        """
        return self._get_best()[0]

    @property
    def best_iteration(self) -> int:
        """Number of completed iterations at the best value.

        Raises:
            RuntimeError: If no interval with a reported value has ended.
        """
        return self._get_best()[1]

    @property
    def best_epoch(self) -> int | None:
        """Number of completed epochs at the best value. None if the epoch length is not set.

        Raises:
            RuntimeError: If no interval with a reported value has ended.
        """
        return self._get_best()[2]

    def take_trigger(self, trigger: TriggerLike) -> bool:
        self._mean.set_trigger(trigger)
        return True

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
            raise RuntimeError(
                f"No best value of {self._mean.key!r} yet. No interval with a reported value has ended. An extension "
                "that reads it runs after this one: pass it with priority=PRIORITY_READER, later in the list."
            )
        return self._best


class MaxValue(BestValue):
    """Extension that keeps the highest mean of a metric.

    See :class:`BestValue` for when the extension runs, its attributes, and its state in snapshots.

    Args:
        key: Key of the metric in the observation, such as ``"val/accuracy"``.
        trigger: Inner trigger, which ends an interval. The extension itself runs in every iteration. Defaults to
            ``(1, "epoch")``.

    Raises:
        TypeError: If ``key`` or ``trigger`` has the wrong type.
        ValueError: If ``key`` is empty or ``trigger`` is invalid.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> best = extensions.MaxValue("val/accuracy")
        >>> with pte.ExtensionsManager({}, 3, [best], iters_per_epoch=1, sinks=[]) as manager:
        ...     for value in [0.5, 0.75, 0.7]:
        ...         with manager.run_iteration():
        ...             pte.report({"val/accuracy": value})
        >>> best.best_value, best.best_epoch
        (0.75, 2)
    """

    default_name = "max_value"

    def __init__(self, key: str, trigger: TriggerLike = (1, "epoch")) -> None:
        super().__init__(key, operator.lt, trigger)


class MinValue(BestValue):
    """Extension that keeps the lowest mean of a metric.

    See :class:`BestValue` for when the extension runs, its attributes, and its state in snapshots.

    Args:
        key: Key of the metric in the observation, such as ``"val/loss"``.
        trigger: Inner trigger, which ends an interval. The extension itself runs in every iteration. Defaults to
            ``(1, "epoch")``.

    Raises:
        TypeError: If ``key`` or ``trigger`` has the wrong type.
        ValueError: If ``key`` is empty or ``trigger`` is invalid.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> best = extensions.MinValue("val/loss")
        >>> with pte.ExtensionsManager({}, 3, [best], iters_per_epoch=1, sinks=[]) as manager:
        ...     for value in [0.5, 0.25, 0.3]:
        ...         with manager.run_iteration():
        ...             pte.report({"val/loss": value})
        >>> best.best_value, best.best_epoch
        (0.25, 2)
    """

    default_name = "min_value"

    def __init__(self, key: str, trigger: TriggerLike = (1, "epoch")) -> None:
        super().__init__(key, operator.gt, trigger)
