"""Trigger that stops the training when a metric stops improving."""

from __future__ import annotations

import logging
import math
import sys
from typing import Any, Literal

from pte_tracking._interface.extension import Manager, TriggerLike, Unit
from pte_tracking._interface.other_names import accept_names
from pte_tracking._interface.progress import Progress
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.messages import write_above_bars
from pte_tracking._store.metric_names import is_known_metric, is_lower_better
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers._conversion import get_trigger
from pte_tracking.triggers.interval import IntervalTrigger, has_ended
from pte_tracking.triggers.interval_mean import IntervalMean

_logger = logging.getLogger("pte_tracking")


class EarlyStoppingTrigger(Trigger):
    """Trigger that stops the training when a metric stops improving.

    Pass it to a manager as ``stop_trigger``. At the end of each interval, the mean of the metric is compared with the
    best mean of the earlier intervals. The trigger fires after ``patience`` consecutive intervals without a new best
    mean, and in any case when ``max_trigger`` is reached. An interval in which the metric was not reported is skipped,
    the first time with a warning. A NaN mean counts as an interval without improvement. In distributed training, the
    mean is over the values of all ranks.

    Snapshots contain the best mean, the number of intervals without improvement, the values of the current interval,
    and the state of ``check_trigger``.

    Args:
        check_trigger: When an interval ends. Defaults to ``(1, "epoch")``.
        monitor: Key of the metric in the observation. Defaults to ``"main/loss"``.
        patience: Number of consecutive intervals without a new best mean after which the trigger fires, also accepted
            as ``patients``. At least 1. Defaults to 3.
        mode: ``"max"`` if a higher mean is better, ``"min"`` if a lower mean is better. ``"auto"``, the default,
            selects ``"max"`` if ``monitor`` contains the name of a metric of which higher values are better, such as
            accuracy, f1, auc, precision, recall, iou, dice, bleu, or r2, as a word, and ``"min"`` otherwise. A warning
            is logged if the name does not show the mode.
        verbose: Whether to print the line about an early stop to the standard output of rank 0. Defaults to False: it
            is logged.
        max_trigger: Maximum length of the training. Defaults to ``(100, "epoch")``, as in Chainer.
        min_delta: Amount by which a mean must be better than the best one to count as an improvement, not negative.
            Defaults to 0. An accuracy that is reported in single precision may improve by its rounding error only, so
            report ``.double().mean()``.

    Raises:
        TypeError: If ``patience`` is not an integer, or if ``max_trigger`` is not a length such as ``(100, "epoch")``.
        ValueError: If ``mode`` is unknown, ``patience`` is less than 1, ``min_delta`` is negative, or a trigger is
            invalid.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import triggers
        >>> stop = triggers.EarlyStoppingTrigger(monitor="val/loss", patience=2, max_trigger=(10, "epoch"))
        >>> with pte.ExtensionsManager({}, 10, iters_per_epoch=1, stop_trigger=stop, sinks=[]) as manager:
        ...     losses = iter([0.5, 0.3, 0.4, 0.4, 0.1])
        ...     while not manager.stop_trigger:
        ...         with manager.run_iteration():
        ...             pte.report({"val/loss": next(losses)})
        >>> manager.epoch
        4
    """

    @accept_names(patients="patience")
    @refuse_unknown()
    def __init__(
        self,
        check_trigger: TriggerLike = (1, "epoch"),
        monitor: str = "main/loss",
        patience: int = 3,
        mode: Literal["auto", "min", "max"] = "auto",
        verbose: bool = False,
        max_trigger: TriggerLike = (100, "epoch"),
        *,
        min_delta: float = 0.0,
    ) -> None:
        if mode not in ("auto", "max", "min"):
            raise ValueError(f"mode: expected 'auto', 'max' or 'min', got {mode!r}")
        if isinstance(patience, bool) or not isinstance(patience, int):
            raise TypeError(f"patience: expected an integer number of intervals, got {patience!r}")
        if patience < 1:
            raise ValueError(f"patience: expected at least 1 interval, got {patience!r}")
        if not isinstance(min_delta, int | float) or not min_delta >= 0:
            raise ValueError(f"min_delta: expected a number of at least 0, got {min_delta!r}")
        self._mean = IntervalMean(type(self).__name__, monitor, check_trigger)
        limit = get_trigger(max_trigger)
        if not isinstance(limit, IntervalTrigger):
            raise TypeError(f"max_trigger: expected a length such as (100, 'epoch'), got {max_trigger!r}")
        self._max_trigger = limit
        self._is_mode_unclear = mode == "auto" and not is_known_metric(monitor)
        if mode == "auto":
            mode = "min" if is_lower_better(monitor) else "max"
        self._sign = 1 if mode == "max" else -1
        self._patience = patience
        self._verbose = verbose
        self._min_delta = min_delta
        self._best = -math.inf  # The signed mean: the highest is the best in both modes.
        self._bad_intervals = 0

    @property
    def _mode(self) -> str:
        return "max" if self._sign > 0 else "min"

    @property
    def training_length(self) -> tuple[float, Unit]:
        return self._max_trigger.training_length

    def evaluate(self, manager: Manager) -> bool:
        return self(manager)  # The mean is the same on every rank.

    def __call__(self, manager: Manager) -> bool:
        if self._is_mode_unclear and manager.world.rank == 0:
            self._is_mode_unclear = False
            _logger.warning(
                "EarlyStoppingTrigger: the name %r does not show which values are better, so lower values are. Pass "
                "mode='max' or mode='min'.",
                self._mean.key,
            )
        value = self._mean.evaluate(manager)
        if value is not None:
            is_better = self._sign * value > self._best + self._min_delta
            self._best = self._sign * value if is_better else self._best
            self._bad_intervals = 0 if is_better else self._bad_intervals + 1
        if value is None or self._bad_intervals < self._patience:
            return self._max_trigger.is_reached(manager.updater)
        if manager.world.rank == 0:
            best = f"Best {self._mean.key} (mode {self._mode!r}): {self._sign * self._best:.4g}"
            line = f"Early stopping {_describe_progress(manager)}. {best}"
            if self._verbose and sys.stdout is not None:
                write_above_bars(f"{line}\n", sys.stdout)
            else:
                _logger.info(line)
        return True

    def is_reached(self, progress: Progress) -> bool:
        """Return whether the trigger has fired with the current patience and maximum length.

        A resumed training may set other values than the session that saved the state.

        Args:
            progress: Iteration and epoch counters of the training.
        """
        return self._bad_intervals >= self._patience or has_ended(self._max_trigger, progress)

    def describe_stop(self) -> tuple[str, str]:
        """Return text for a message: how the trigger ended the training, and what to change to continue it."""
        if self._bad_intervals < self._patience:
            return "", f"increase max_trigger of the EarlyStoppingTrigger, which is {self.training_length}"
        intervals = f"{self._bad_intervals} interval{'' if self._bad_intervals == 1 else 's'}"
        return (
            f" by early stopping, after {intervals} without a better mean of {self._mean.key!r}",
            f"pass a patience of more than {intervals} to EarlyStoppingTrigger",
        )

    def state_dict(self) -> dict[str, Any]:
        return {"mode": self._mode, "mean": self._mean.state_dict(), "best": self._best, "in_vain": self._bad_intervals}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if (saved_mode := state.get("mode", self._mode)) != self._mode:
            raise ValueError(f"the saved best mean is of the mode {saved_mode!r}, but the mode is {self._mode!r} now")
        self._mean.load_state_dict(state["mean"])
        self._best, self._bad_intervals = state["best"], state["in_vain"]


def _describe_progress(manager: Manager) -> str:
    progress = manager.updater
    if progress.has_epoch_length and progress.is_new_epoch:
        return f"after epoch {progress.epoch}"
    return f"at iteration {progress.iteration}"
