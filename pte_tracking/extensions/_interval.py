"""Base class of extensions with an inner trigger."""

from __future__ import annotations

from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking.triggers import Trigger, get_trigger
from pte_tracking.triggers.interval import fires_each_iteration


class IntervalExtension(Extension):
    """Base class of extensions that collect values in each iteration and use them at the end of an interval.

    The engine calls the extension in each iteration. A subclass evaluates ``self._trigger`` in each call, because a
    trigger may communicate with other ranks, and includes its state in its own. If it reports values at the end of an
    interval, its ``reports_each_iteration`` returns ``self._is_always_due``: whether each iteration ends an interval.

    Args:
        trigger: When an interval ends.
    """

    def __init__(self, trigger: TriggerLike) -> None:
        self._set_trigger(trigger)

    def take_trigger(self, trigger: TriggerLike) -> bool:
        self._set_trigger(trigger)
        return True

    def _set_trigger(self, trigger: TriggerLike) -> None:
        self._trigger: Trigger = get_trigger(trigger)
        self._is_always_due = fires_each_iteration(self._trigger)


def has_ended_an_epoch(manager: Manager) -> bool:
    """Return whether the values that are reported once per epoch have been due.

    A training that is interrupted in its first epoch has not evaluated its model yet. Without an epoch length, all
    values have been due.
    """
    epoch = manager.updater.epoch_or_none
    return epoch is None or epoch > 0 or manager.stop_trigger
