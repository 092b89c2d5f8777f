"""Ratio of the sums of two reported values."""

from __future__ import annotations

import logging
import math
from typing import Any, TypeAlias

from torch import Tensor

from pte_tracking._distributed.world import World
from pte_tracking._interface.extension import PRIORITY_EDITOR, Manager, TriggerLike
from pte_tracking._store.similar import describe_known
from pte_tracking._store.values import check_key, to_number
from pte_tracking.extensions._interval import IntervalExtension
from pte_tracking.reporter import DeferredValue, SummaryState, Value, report, weight_of

_logger = logging.getLogger("pte_tracking")

_Sum: TypeAlias = int | float | Tensor


class MicroAverage(IntervalExtension):
    """Extension that reports the ratio of the sums of two values, such as correct answers and all answers.

    In contrast to the mean of the ratios of batches, every example has the same weight. The extension runs after every
    iteration, before :class:`~pte_tracking.extensions.LogReport`, and adds the two values. A value that is reported
    with a weight is multiplied by it. Iterations in which one of them was not reported are ignored. When the inner
    trigger fires, the ratio since the last firing is reported as ``result_key``. The ratio is NaN if the sum of the
    denominators is zero. The first interval without values causes a warning. In distributed training, the sums are over
    all ranks. In a single process, sums of values on another device, and their ratio, stay on that device.

    Snapshots contain the two sums and the state of the inner trigger.

    Args:
        numerator_key: Key of the numerator, such as the number of correct answers in a batch.
        denominator_key: Key of the denominator, such as the number of answers in a batch.
        result_key: Key of the reported ratio.
        trigger: Inner trigger, which ends an interval. The extension itself runs in every iteration. Defaults to
            ``(1, "epoch")``.

    Raises:
        TypeError: If a key is not a string, or if ``trigger`` has the wrong type.
        ValueError: If a key is empty or ``trigger`` is invalid.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> average = extensions.MicroAverage("correct", "seen", "train/accuracy")
        >>> with pte.ExtensionsManager({}, 1, [average], iters_per_epoch=2, sinks=[]) as manager:
        ...     for correct, seen in manager.batches([(6, 8), (0, 2)]):
        ...         with manager.run_iteration():
        ...             pte.report({"correct": correct, "seen": seen})
        >>> manager.observation["train/accuracy"]
        0.6
    """

    priority = PRIORITY_EDITOR

    def __init__(
        self, numerator_key: str, denominator_key: str, result_key: str, trigger: TriggerLike = (1, "epoch")
    ) -> None:
        self._numerator_key = check_key(numerator_key, "numerator_key")
        self._denominator_key = check_key(denominator_key, "denominator_key")
        self._result_key = check_key(result_key, "result_key")
        super().__init__(trigger)
        self._sums: tuple[_Sum, _Sum] | None = None
        self._has_warned = False

    @property
    def reports_each_iteration(self) -> bool:
        return self._is_always_due

    def __call__(self, manager: Manager) -> None:
        observation = manager.observation
        if self._numerator_key in observation and self._denominator_key in observation:
            numerator, denominator = self._sums or (0, 0)
            self._sums = (
                numerator + _weighted(observation[self._numerator_key]),
                denominator + _weighted(observation[self._denominator_key]),
            )
        if not self._trigger.evaluate(manager):
            return
        sums = self._sums if manager.world.is_single_process else _reduce_sums(manager.world, self._sums)
        if sums is not None:
            report({self._result_key: _ratio(*sums)})
            self._sums = None
        elif not self._has_warned and manager.world.rank == 0:
            self._has_warned = True
            self._warn(manager)

    @property
    def _keys(self) -> list[str]:
        return [self._numerator_key, self._denominator_key]

    def state_dict(self) -> dict[str, Any]:
        # The format of a summary, which is merged if the run is resumed with another number of ranks.
        sums = {
            key: SummaryState(n=1, x=to_number("sum", value), x2=0, large_x=0, large_x2=0)
            for key, value in zip(("numerator", "denominator"), self._sums or (), strict=False)
        }
        return {"keys": self._keys, "sums": sums, "trigger": self._trigger.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (saved_keys := state.get("keys", self._keys)) != self._keys:
            raise ValueError(f"the saved sums are of the metrics {saved_keys}, but the metrics are {self._keys} now")
        sums = state["sums"]
        self._sums = (sums["numerator"]["x"], sums["denominator"]["x"]) if sums else None
        self._trigger.load_state_dict(state["trigger"])

    def _warn(self, manager: Manager) -> None:
        keys = self._keys
        missing = next((key for key in keys if key not in manager.observation), keys[0])
        _logger.warning(
            "MicroAverage: no iteration of the interval that ended at iteration %d reported %r and %r, and such an "
            "interval has no %r. %s",
            manager.iteration,
            *keys,
            self._result_key,
            describe_known(missing, manager.observation),
        )


def _reduce_sums(world: World, sums: tuple[_Sum, _Sum] | None) -> tuple[_Sum, _Sum] | None:
    """Return the sums over all ranks. None if no rank has values."""
    values = [0, 0] if sums is None else [to_number("sum", value) for value in sums]
    numerator, denominator, ranks = world.all_reduce_sum([*values, sums is not None])
    return (numerator, denominator) if ranks else None


def _ratio(numerator: _Sum, denominator: _Sum) -> _Sum:
    if isinstance(denominator, Tensor) or denominator:
        return numerator / denominator
    return math.nan


def _weighted(value: Value) -> _Sum:
    number = value() if isinstance(value, DeferredValue) else value
    return number if type(number) is float else weight_of(value) * number
