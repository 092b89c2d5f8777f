"""When an extension runs, or the training stops."""

from pte_tracking.triggers.base import Trigger
from pte_tracking.triggers.conversion import get_trigger
from pte_tracking.triggers.interval import IntervalTrigger

__all__ = ["IntervalTrigger", "Trigger", "get_trigger"]
