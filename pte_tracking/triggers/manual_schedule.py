"""Trigger that fires at fixed points of the training."""

from __future__ import annotations

from collections.abc import Iterable

from pte_tracking._interface.extension import Manager, Unit
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers.interval import check_unit, exact_fraction


class ManualScheduleTrigger(Trigger):
    """Trigger that fires in each iteration that reaches one of several points.

    The trigger has no state, so a resumed training may use other points.

    Args:
        points: One point or several, in units of ``unit`` from the start of the training. Each is positive and finite
            and may be a fraction, such as 0.5 epochs.
        unit: ``"epoch"`` or ``"iteration"``.

    Attributes:
        points: List of the points.
        unit: Unit of the points.

    Raises:
        TypeError: If a point is not a number.
        ValueError: If a point is not positive and finite, or if ``unit`` is unknown.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import triggers
        >>> @pte.make_extension(trigger=triggers.ManualScheduleTrigger([1, 2.5], "epoch"))
        ... def lower_learning_rate(manager):
        ...     print("epoch", manager.epoch_detail)
        >>> with pte.ExtensionsManager({}, 3, [lower_learning_rate], iters_per_epoch=2, sinks=[]) as manager:
        ...     for batch in manager.batches(range(2)):
        ...         with manager.run_iteration():
        ...             pass
        epoch 1.0
        epoch 2.5
    """

    def __init__(self, points: float | Iterable[float], unit: Unit) -> None:
        check_unit(unit)
        self.points = list(points) if isinstance(points, Iterable) else [points]
        self.unit = unit
        self._exact = [exact_fraction("points", point).as_integer_ratio() for point in self.points]

    def evaluate(self, manager: Manager) -> bool:
        return self(manager)

    def __call__(self, manager: Manager) -> bool:
        length, done = manager.updater.count(self.unit)
        return any(
            (done - 1) * denominator < numerator * length <= done * denominator
            for numerator, denominator in self._exact
        )
