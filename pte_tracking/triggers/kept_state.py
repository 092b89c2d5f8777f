"""Objects in which triggers keep a state between iterations."""

from __future__ import annotations

import types
from collections.abc import Iterator

from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers._conversion import CallableTrigger, Never
from pte_tracking.triggers.function import FunctionTrigger
from pte_tracking.triggers.interval import IntervalTrigger
from pte_tracking.triggers.interval_mean import IntervalMean
from pte_tracking.triggers.manual_schedule import ManualScheduleTrigger

#: Triggers and functions that decide by the progress alone. The inner trigger of a FunctionTrigger is a separate one.
_WITHOUT_STATE = (
    *(IntervalTrigger, ManualScheduleTrigger, FunctionTrigger, Never),
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType),
)


def objects_with_state(trigger: Trigger) -> Iterator[object]:
    """Yield the trigger, its inner triggers, and the callables that they call, each if it may keep a state."""
    for part in (trigger, *inner_triggers(trigger)):
        target = part.function if isinstance(part, CallableTrigger) else part
        if not isinstance(target, _WITHOUT_STATE) and getattr(target, "__dict__", None):
            yield target


def inner_triggers(item: object) -> Iterator[Trigger]:
    """Yield the triggers that an extension or a trigger evaluates itself, which are its attributes."""
    for name, value in vars(item).items():
        if isinstance(value, Trigger) and name != "trigger":  # The manager evaluates the trigger of an extension.
            yield value
            yield from inner_triggers(value)
        elif isinstance(value, IntervalMean):
            yield from inner_triggers(value)
