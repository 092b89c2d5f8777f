"""Stop condition of a training."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from pte_tracking._engine.differences import STOP_TRIGGER, AllowedDifferences
from pte_tracking._engine.parts import load_allowed
from pte_tracking._interface.extension import Manager
from pte_tracking._interface.progress import Progress
from pte_tracking.triggers import EarlyStoppingTrigger, IntervalTrigger, Trigger


class StopCondition:
    """Stop trigger and its result after the last iteration.

    Args:
        trigger: The stop trigger.

    Attributes:
        trigger: The stop trigger.
        should_stop: Whether the training should stop.
    """

    def __init__(self, trigger: Trigger) -> None:
        self.trigger = trigger
        self.should_stop = False

    def evaluate(self, manager: Manager) -> None:
        """Evaluate the stop trigger after an iteration.

        Args:
            manager: The manager.
        """
        if isinstance(self.trigger, IntervalTrigger):
            # Not evaluate(): an explicit iteration number can skip the exact end.
            self.should_stop = self.trigger.is_reached(manager.updater)
        else:
            self.should_stop = self.trigger.evaluate(manager)

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        return {"is_over": self.should_stop, "stop_trigger": self.trigger.state_dict()}

    def load_state_dict(
        self, state: Mapping[str, Any], progress: Progress, undo: contextlib.ExitStack, allowed: AllowedDifferences
    ) -> None:
        """Restore the state returned by :meth:`state_dict`.

        The progress is compared with the length or the patience of the current trigger, not of the saved one. If the
        saved trigger had no state, the current trigger starts without a state.

        Args:
            state: The state.
            progress: Restored progress of the training.
            undo: Receives a function that returns the trigger to its earlier state.
            allowed: Whether the trigger may refuse its state, or is not restored.

        Raises:
            ValueError: If the trigger refuses its state.
        """
        if state["stop_trigger"]:
            load_allowed(STOP_TRIGGER, self.trigger, state["stop_trigger"], undo, allowed)
        if isinstance(self.trigger, IntervalTrigger | EarlyStoppingTrigger) and progress.has_epoch_length:
            self.should_stop = self.trigger.is_reached(progress)
        else:
            self.should_stop = state["is_over"]
