"""Conversion of trigger arguments to triggers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._store.argument_names import refused_call
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers.interval import IntervalTrigger


def get_trigger(trigger: TriggerLike) -> Trigger:
    """Convert an argument to a trigger.

    Args:
        trigger: One of the following:

            - A :class:`Trigger`, which is returned unchanged.
            - A pair of a period and its unit, such as ``(2, "epoch")`` or ``(100, "iteration")``.
            - A function that takes the manager and returns whether to fire. If it has the methods ``state_dict`` and
              ``load_state_dict``, they save and restore its state.
            - None for a trigger that never fires.

    Returns:
        The trigger.

    Raises:
        TypeError: If the argument is of another type.
        ValueError: If the unit is unknown, or if the period is not positive and finite.

    Example:
        >>> import pte_tracking as pte
        >>> pte.get_trigger((2, "epoch"))
        IntervalTrigger(2, 'epoch')
    """
    if isinstance(trigger, Trigger):
        return trigger
    if trigger is None:
        return Never()
    if isinstance(trigger, type):
        raise TypeError(
            f"trigger: expected an instance, got the class {trigger.__name__}. Write {trigger.__name__}(...)."
        )
    if isinstance(trigger, Extension):
        raise TypeError(
            f"trigger: expected (period, unit) or a trigger, got the extension {type(trigger).__name__}. Add it to the "
            "list of extensions."
        )
    if callable(trigger):
        if call := refused_call(trigger, 1):
            raise TypeError(
                f"trigger: expected a function of one argument, the manager, got {call}. Pass a function without "
                "arguments as triggers.FunctionTrigger(function)."
            )
        return CallableTrigger(trigger)
    if isinstance(trigger, tuple | list) and len(trigger) == 2:
        return IntervalTrigger(*trigger)
    raise TypeError(
        "trigger: expected (period, 'epoch') or (period, 'iteration'), a trigger, a function of the manager, or None, "
        f"got {trigger!r}"
    )


class CallableTrigger(Trigger):
    """Trigger that calls a function of the manager and saves the state of the function, if it has one.

    Args:
        function: The function.

    Attributes:
        function: The function.
    """

    def __init__(self, function: Callable[[Manager], bool]) -> None:
        self.function = function

    def __call__(self, manager: Manager) -> bool:
        return bool(self.function(manager))

    def state_dict(self) -> dict[str, Any]:
        save = getattr(self.function, "state_dict", dict)
        return dict(save())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load = getattr(self.function, "load_state_dict", None)
        if load is not None:
            load(state)


class Never(Trigger):
    """Trigger that never fires, for extensions that only have other hooks or are called by other extensions."""

    def evaluate(self, manager: Manager) -> bool:
        return self(manager)

    def __call__(self, manager: Manager) -> bool:
        return False
