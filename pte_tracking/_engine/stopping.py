"""When a training stops, and whether it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pte_tracking._interface.extension import Manager
from pte_tracking._interface.progress import Progress
from pte_tracking.triggers import EarlyStoppingTrigger, IntervalTrigger, Trigger


class StopCondition:
    """Asks the stop trigger once in each iteration and keeps the answer.

    Attributes:
        trigger: The trigger.
        is_over: Its last answer.
    """

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.should_stop = False

    def evaluate(self, manager: Manager) -> None:
        """Asks about the iteration that was just done."""
        if isinstance(self.trigger, IntervalTrigger):
            self.should_stop = self.trigger.is_reached(manager.updater)  # in this iteration, or passed by
        else:
            self.should_stop = self.trigger.evaluate(manager)

    def state_dict(self) -> dict[str, Any]:
        return {"is_over": self.should_stop, "stop_trigger": self.trigger.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], progress: Progress) -> None:
        """Takes back what :meth:`state_dict` returned.

        A length, or a patience, is compared with the progress again: what is given now counts, not what was at the time
        of the snapshot. A trigger that takes the place of one without a state begins anew.
        """
        if state["stop_trigger"]:
            self.trigger.load_state_dict(state["stop_trigger"])
        if isinstance(self.trigger, IntervalTrigger | EarlyStoppingTrigger) and progress.has_epoch_length:
            self.should_stop = self.trigger.is_reached(progress)
        else:
            self.should_stop = state["is_over"]
