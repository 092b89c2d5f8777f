"""Description of triggers, to compare them across runs."""

from __future__ import annotations

from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers.interval import IntervalTrigger
from pte_tracking.triggers.interval_mean import IntervalMean


def describe_trigger(trigger: Trigger | IntervalMean) -> str:
    """Return the type and the intervals of a trigger, such as ``MinValueTrigger (IntervalTrigger(1, 'epoch'))``."""
    if isinstance(trigger, IntervalTrigger):
        return repr(trigger)
    parts = [describe_trigger(value) for value in vars(trigger).values() if isinstance(value, Trigger | IntervalMean)]
    return " ".join([type(trigger).__name__, *(f"({part})" for part in parts)])
