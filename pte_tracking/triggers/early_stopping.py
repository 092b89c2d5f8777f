"""When a value has stopped getting better."""

from __future__ import annotations

import math
from typing import Any

from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking._interface.progress import Progress
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers._conversion import get_trigger
from pte_tracking.triggers.interval import IntervalTrigger
from pte_tracking.triggers.interval_mean import IntervalMean


class EarlyStoppingTrigger(Trigger):
    """Fires when the mean of a value was not better than its best for several intervals; made for ``stop_trigger``.

    Args:
        check_trigger: Fires at the end of an interval.
        monitor: The value's key in the observation.
        patience: How many intervals in a row without a new best value make it fire.
        mode: Whether ``"max"`` or ``"min"`` is best; ``"auto"`` is max for keys with ``accuracy`` in them.
        verbose: Print a line when it fires.
        max_trigger: Fires then in any case: the most that the training may last.

    Raises:
        TypeError: The patience is no whole number, or the most no length.
        ValueError: The mode is unknown or the patience not positive.
    """

    def __init__(
        self,
        check_trigger: TriggerLike = (1, "epoch"),
        monitor: str = "main/loss",
        patience: int = 3,
        mode: str = "auto",
        verbose: bool = False,
        max_trigger: TriggerLike = (100, "epoch"),
    ) -> None:
        if mode not in ("auto", "max", "min"):
            raise ValueError(f"mode: expected 'auto', 'max' or 'min', got {mode!r}")
        if isinstance(patience, bool) or not isinstance(patience, int):
            raise TypeError(f"patience: expected a whole number of intervals, got {patience!r}")
        if patience < 1:
            raise ValueError(f"patience: expected at least one interval, got {patience!r}")
        self._mean = IntervalMean(monitor, check_trigger)
        limit = get_trigger(max_trigger)
        if not isinstance(limit, IntervalTrigger):
            raise TypeError(f"max_trigger: expected a length such as (100, 'epoch'), got {max_trigger!r}")
        self._max_trigger = limit
        self._sign = 1 if mode == "max" or (mode == "auto" and "accuracy" in monitor) else -1
        self._patience = patience
        self._verbose = verbose
        self._best = -math.inf  # of the signed values, of which the highest is best
        self._bad_intervals = 0

    @property
    def training_length(self) -> tuple[float, str]:
        return self._max_trigger.training_length

    def evaluate(self, manager: Manager) -> bool:
        return self(manager)  # the mean is that of all ranks

    def __call__(self, manager: Manager) -> bool:
        value = self._mean.evaluate(manager)
        if value is not None:
            is_better = self._sign * value > self._best
            self._best = self._sign * value if is_better else self._best
            self._bad_intervals = 0 if is_better else self._bad_intervals + 1
        if value is None or self._bad_intervals < self._patience:
            return self._max_trigger.is_reached(manager.updater)  # in this iteration, or passed by
        if self._verbose and manager.world.rank == 0:
            best = self._sign * self._best
            print(f"early stopping at iteration {manager.iteration}: {self._mean.key} was best at {best}")
        return True

    def is_reached(self, progress: Progress) -> bool:
        """Whether it has fired, or would have if the patience and the most had been what they are."""
        return self._bad_intervals >= self._patience or self._max_trigger.is_reached(progress)

    def state_dict(self) -> dict[str, Any]:
        return {"mean": self._mean.state_dict(), "best": self._best, "in_vain": self._bad_intervals}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._mean.load_state_dict(state["mean"])
        self._best, self._bad_intervals = state["best"], state["in_vain"]
