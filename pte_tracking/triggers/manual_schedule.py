"""At given points of the training."""

from __future__ import annotations

from collections.abc import Iterable

from pte_tracking._interface.extension import Manager
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers.interval import check_unit, exact_fraction


class ManualScheduleTrigger(Trigger):
    """Fires in the iteration that reaches one of several points.

    Args:
        points: A point or several, counted from the start of the training; they may be fractions.
        unit: ``"epoch"`` or ``"iteration"``.
    """

    def __init__(self, points: float | Iterable[float], unit: str) -> None:
        check_unit(unit)
        self.points = list(points) if isinstance(points, Iterable) else [points]
        self.unit = unit
        self._exact = [exact_fraction("points", point).as_integer_ratio() for point in self.points]

    def evaluate(self, manager: Manager) -> bool:
        return self(manager)

    def __call__(self, manager: Manager) -> bool:
        progress = manager.updater
        in_epochs = self.unit == "epoch"
        length, done = (progress.iters_per_epoch, progress.rescaled_iteration) if in_epochs else (1, progress.iteration)
        return any(
            (done - 1) * denominator < numerator * length <= done * denominator
            for numerator, denominator in self._exact
        )
