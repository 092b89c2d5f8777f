"""Base class of extensions with an inner trigger."""

from __future__ import annotations

from pte_tracking._interface.extension import Extension, TriggerLike
from pte_tracking.triggers import IntervalTrigger, Trigger, get_trigger


class IntervalExtension(Extension):
    """Base class of extensions that collect values in each iteration and use them at the end of an interval.

    Args:
        trigger: When an interval ends.
    """

    def __init__(self, trigger: TriggerLike) -> None:
        self._trigger: Trigger = get_trigger(trigger)

    def take_trigger(self, trigger: TriggerLike) -> bool:
        self._trigger = get_trigger(trigger)
        return True

    def _ends_each_iteration(self) -> bool:
        return isinstance(self._trigger, IntervalTrigger) and self._trigger.is_each_iteration
