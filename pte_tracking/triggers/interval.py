"""Trigger that fires periodically by iterations or epochs."""

from __future__ import annotations

import math
from fractions import Fraction
from numbers import Rational, Real

from pte_tracking._interface.extension import Manager, Unit
from pte_tracking._interface.progress import Progress
from pte_tracking.triggers._base import Trigger

_UNITS = ("epoch", "iteration")


class IntervalTrigger(Trigger):
    """Trigger that fires in each iteration that reaches a multiple of a period.

    A pair such as ``(1, "epoch")`` is a short form of this trigger. Every argument that expects a trigger accepts the
    short form. As ``stop_trigger``, the trigger sets the length of the training.

    The trigger has no state, so a resumed training may use another period.

    Args:
        period: Length of the interval in units of ``unit``, positive and finite. With a fraction such as 0.1 epochs,
            the trigger fires in the first iteration that reaches each multiple. Multiples are computed exactly, without
            rounding errors.
        unit: ``"epoch"`` or ``"iteration"``.

    Attributes:
        period: Length of the interval.
        unit: Unit of the period.

    Raises:
        TypeError: If ``period`` is not a number.
        ValueError: If ``period`` is not positive and finite, or if ``unit`` is unknown.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import triggers
        >>> @pte.make_extension(trigger=triggers.IntervalTrigger(0.5, "epoch"))
        ... def validate(manager):
        ...     print("validate at iteration", manager.iteration)
        >>> with pte.ExtensionsManager({}, 2, [validate], iters_per_epoch=4, sinks=[]) as manager:
        ...     for batch in manager.batches(range(4)):
        ...         with manager.run_iteration():
        ...             pass
        validate at iteration 2
        validate at iteration 4
        validate at iteration 6
        validate at iteration 8
    """

    def __init__(self, period: float, unit: Unit) -> None:
        check_unit(unit)
        self.period = period
        self.unit = unit
        self._numerator, self._denominator = exact_fraction("period", period).as_integer_ratio()

    @property
    def is_each_iteration(self) -> bool:
        """Whether the trigger fires in each iteration."""
        return self.unit == "iteration" and self._numerator <= self._denominator

    def evaluate(self, manager: Manager) -> bool:
        return self.__call__(manager)  # self(manager) would take longer in each iteration

    def __call__(self, manager: Manager) -> bool:
        length, done = manager.updater.count(self.unit)
        # True if a multiple of period * length is in (done - 1, done]. Integer arithmetic avoids rounding errors.
        return done * self._denominator % (self._numerator * length) < self._denominator and done > 0

    def is_reached(self, progress: Progress) -> bool:
        """Return whether the first interval has ended.

        Args:
            progress: Iteration and epoch counters of the training.
        """
        length, done = progress.count(self.unit)
        return done * self._denominator >= self._numerator * length

    @property
    def training_length(self) -> tuple[float, Unit]:
        return self.period, self.unit

    def __repr__(self) -> str:
        return f"IntervalTrigger({self.period!r}, {self.unit!r})"


def has_ended(length: IntervalTrigger, progress: Progress) -> bool:
    """Return whether a length of the training is reached. One in epochs is not, as long as the epoch length is unknown.

    Args:
        length: The length.
        progress: Iteration and epoch counters of the training.
    """
    return (length.unit == "iteration" or progress.has_epoch_length) and length.is_reached(progress)


def check_unit(unit: object) -> None:
    """Raise ValueError unless the unit is ``"epoch"`` or ``"iteration"``."""
    if unit not in _UNITS:
        raise ValueError(f"unit: expected 'epoch' or 'iteration', got {unit!r}")


def exact_fraction(argument: str, number: float | Real) -> Fraction:
    """Return the simple fraction nearest to a number: 1/10 for 0.1, which a float represents inexactly.

    Args:
        argument: Name of the argument, for error messages.
        number: Positive finite number.

    Raises:
        TypeError: If ``number`` is not a real number.
        ValueError: If ``number`` is not positive and finite.
    """
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{argument}: expected a number, got {number!r} of type {type(number).__name__}")
    if not 0 < float(number) < math.inf:
        raise ValueError(f"{argument}: expected a positive number, got {number!r}")
    exact = Fraction(number) if isinstance(number, Rational) else Fraction(float(number))
    return exact.limit_denominator(1_000_000) or exact


def fires_each_iteration(trigger: Trigger) -> bool:
    """Return whether a trigger fires in each iteration, so it does not need to be evaluated.

    A subclass of :class:`IntervalTrigger` may override the decision.
    """
    return type(trigger) is IntervalTrigger and trigger.is_each_iteration
