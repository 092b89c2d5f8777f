"""Triggers, which decide when an extension runs and when the training stops."""

from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers._conversion import get_trigger
from pte_tracking.triggers.best_value import BestValueTrigger, MaxValueTrigger, MinValueTrigger
from pte_tracking.triggers.early_stopping import EarlyStoppingTrigger
from pte_tracking.triggers.function import FunctionTrigger
from pte_tracking.triggers.interval import IntervalTrigger
from pte_tracking.triggers.manual_schedule import ManualScheduleTrigger
from pte_tracking.triggers.once import OnceTrigger
from pte_tracking.triggers.time_interval import TimeTrigger

__all__ = [
    "BestValueTrigger",
    "EarlyStoppingTrigger",
    "FunctionTrigger",
    "IntervalTrigger",
    "ManualScheduleTrigger",
    "MaxValueTrigger",
    "MinValueTrigger",
    "OnceTrigger",
    "TimeTrigger",
    "Trigger",
    "get_trigger",
]
