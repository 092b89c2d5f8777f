"""A ratio of sums."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from pte_tracking._distributed.world import World
from pte_tracking._interface.extension import PRIORITY_EDITOR, Extension, Manager, TriggerLike
from pte_tracking._store.values import check_key, to_number
from pte_tracking.reporter import SummaryState, Value, report
from pte_tracking.triggers import get_trigger


class MicroAverage(Extension):
    """Reports the ratio of the sums of two values, such as right answers over all answers.

    The mean of the ratios of single batches would weigh a short last batch like a whole one. It runs after every
    iteration, before the log, to add up; iterations in which one of the two was not reported do not count. Whenever
    its inner trigger fires, the ratio since the last time is reported as ``result_key``; where the denominators sum
    up to nothing, it is NaN. Sums of values on another device stay there, and so does their ratio.

    Args:
        numerator_key: Key of the numerator, such as the number of right answers in a batch.
        denominator_key: Key of the denominator, such as the number of answers in a batch.
        result_key: Key of the ratio.
        trigger: When to report (not when the extension itself runs).

    State in snapshots: the two sums and the inner trigger's state.
    """

    priority = PRIORITY_EDITOR

    def __init__(
        self, numerator_key: str, denominator_key: str, result_key: str, trigger: TriggerLike = (1, "epoch")
    ) -> None:
        self._numerator_key = check_key(numerator_key, "numerator_key")
        self._denominator_key = check_key(denominator_key, "denominator_key")
        self._result_key = check_key(result_key, "result_key")
        self._trigger = get_trigger(trigger)
        self._sums: tuple[Value, Value] | None = None

    def __call__(self, manager: Manager) -> None:
        observation = manager.observation
        if self._numerator_key in observation and self._denominator_key in observation:
            numerator, denominator = self._sums or (0, 0)
            self._sums = (
                numerator + observation[self._numerator_key],
                denominator + observation[self._denominator_key],
            )
        if not self._trigger.evaluate(manager):
            return
        sums = self._sums if manager.world.is_single_process else _reduce_sums(manager.world, self._sums)
        if sums is not None:
            report({self._result_key: _ratio(*sums)})
            self._sums = None

    def state_dict(self) -> dict[str, Any]:
        # In the form of all sums, so that they are found where another number of ranks goes on with them.
        sums = {
            key: SummaryState(n=1, x=to_number("sum", value), x2=0)
            for key, value in zip(("numerator", "denominator"), self._sums or (), strict=False)
        }
        return {"sums": sums, "trigger": self._trigger.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        sums = state["sums"]
        self._sums = (sums["numerator"]["x"], sums["denominator"]["x"]) if sums else None
        self._trigger.load_state_dict(state["trigger"])


def _reduce_sums(world: World, sums: tuple[Value, Value] | None) -> tuple[Value, Value] | None:
    """The sums of all ranks; None if no rank has any."""
    values = [0, 0] if sums is None else [to_number("sum", value) for value in sums]
    numerator, denominator, ranks = world.all_reduce_sum([*values, sums is not None])
    return (numerator, denominator) if ranks else None


def _ratio(numerator: Value, denominator: Value) -> Value:
    if isinstance(denominator, Tensor) or denominator:
        return numerator / denominator
    return math.nan
