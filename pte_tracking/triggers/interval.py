"""Every so many iterations or epochs."""

from __future__ import annotations

import math
from fractions import Fraction
from numbers import Rational, Real

from pte_tracking._interface.extension import Manager
from pte_tracking._interface.progress import Progress
from pte_tracking.triggers._base import Trigger

_UNITS = ("epoch", "iteration")


class IntervalTrigger(Trigger):
    """Fires in each iteration that reaches a whole multiple of the period.

    Args:
        period: Length of the interval; a fraction, such as a tenth of an epoch, fires in the first iteration that
            reaches it.
        unit: ``"epoch"`` or ``"iteration"``.
    """

    def __init__(self, period: float, unit: str) -> None:
        check_unit(unit)
        self.period = period
        self.unit = unit
        self._numerator, self._denominator = exact_fraction("period", period).as_integer_ratio()

    def evaluate(self, manager: Manager) -> bool:
        return self(manager)

    def __call__(self, manager: Manager) -> bool:
        progress = manager.updater
        in_epochs = self.unit == "epoch"
        length, done = (progress.iters_per_epoch, progress.rescaled_iteration) if in_epochs else (1, progress.iteration)
        # Whether a multiple of period * length lies in (done - 1, done], in whole numbers.
        return done * self._denominator % (self._numerator * length) < self._denominator and done > 0

    def is_reached(self, progress: Progress) -> bool:
        """Whether the first interval is over."""
        in_epochs = self.unit == "epoch"
        length, done = (progress.iters_per_epoch, progress.rescaled_iteration) if in_epochs else (1, progress.iteration)
        return done * self._denominator >= self._numerator * length

    @property
    def training_length(self) -> tuple[float, str]:
        return self.period, self.unit

    def __repr__(self) -> str:
        return f"IntervalTrigger({self.period!r}, {self.unit!r})"


def check_unit(unit: object) -> None:
    """Raises ValueError unless it is one of the two units."""
    if unit not in _UNITS:
        raise ValueError(f"unit: expected 'epoch' or 'iteration', got {unit!r}")


def exact_fraction(argument: str, number: float | Real) -> Fraction:
    """The simple fraction that a user meant: 0.1 is a tenth, which no float is.

    Raises:
        TypeError: It is no number.
        ValueError: It is not finite, or not positive.
    """
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{argument}: expected a number, got {number!r} of type {type(number).__name__}")
    if not 0 < float(number) < math.inf:
        raise ValueError(f"{argument}: expected a positive number, got {number!r}")
    exact = Fraction(number) if isinstance(number, Rational) else Fraction(float(number))
    return exact.limit_denominator(1_000_000) or exact
