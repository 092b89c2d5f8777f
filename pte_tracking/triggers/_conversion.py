"""Triggers from what users write for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pte_tracking._interface.extension import Manager, TriggerLike
from pte_tracking.triggers._base import Trigger
from pte_tracking.triggers.interval import IntervalTrigger


def get_trigger(trigger: TriggerLike) -> Trigger:
    """A trigger from a pair like ``(2, "epoch")``, a function of the manager, a trigger, or None, which never fires.

    Raises:
        TypeError: It is nothing of these.
        ValueError: The unit is unknown or the period not positive.
    """
    if isinstance(trigger, Trigger):
        return trigger
    if trigger is None:
        return Never()
    if isinstance(trigger, type):
        raise TypeError(f"trigger: got the class {trigger.__name__}; write {trigger.__name__}(...)")
    if callable(trigger):
        return CallableTrigger(trigger)
    if isinstance(trigger, tuple | list) and len(trigger) == 2:
        return IntervalTrigger(*trigger)
    raise TypeError(
        "trigger: expected (period, 'epoch' or 'iteration'), a trigger, a function of the manager, or None, "
        f"got {trigger!r}"
    )


class CallableTrigger(Trigger):
    """Fires when a function of the manager says so; its ``state_dict`` and ``load_state_dict``, if any, are used."""

    def __init__(self, function: Callable[[Manager], bool]) -> None:
        self._function = function

    def __call__(self, manager: Manager) -> bool:
        return bool(self._function(manager))

    def state_dict(self) -> dict[str, Any]:
        save = getattr(self._function, "state_dict", dict)
        return dict(save())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        load = getattr(self._function, "load_state_dict", None)
        if load is not None:
            load(state)


class Never(Trigger):
    """Does not fire; the extension is there to be asked for by others."""

    def evaluate(self, manager: Manager) -> bool:
        return self(manager)

    def __call__(self, manager: Manager) -> bool:
        return False
