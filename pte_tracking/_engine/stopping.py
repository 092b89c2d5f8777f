"""Stop condition of a training."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any, cast

from pte_tracking._engine.differences import STOP_TRIGGER, AllowedDifferences, describe_part
from pte_tracking._engine.parts import load_allowed
from pte_tracking._interface.extension import Manager, Unit
from pte_tracking._interface.progress import Progress
from pte_tracking._snapshots.save_failure import named_failure
from pte_tracking.triggers import EarlyStoppingTrigger, IntervalTrigger, Trigger
from pte_tracking.triggers.interval import has_ended

_logger = logging.getLogger("pte_tracking")


class StopCondition:
    """Stop trigger and its result after the last iteration.

    A stop trigger that is not a length, such as early stopping, ends the training at the latest after its planned
    length.

    Args:
        trigger: The stop trigger. None for the planned length, which is required then.
        limit: Length that the training is planned for. None if only the trigger ends the training.

    Attributes:
        trigger: The stop trigger.
        should_stop: Whether the training should stop.
    """

    def __init__(self, trigger: Trigger | None, limit: IntervalTrigger | None) -> None:
        self.trigger: Trigger = trigger or cast(Trigger, limit)
        self._is_planned = trigger is None
        #: The trigger, if it is a length.
        self._length = self.trigger if isinstance(self.trigger, IntervalTrigger) else None
        #: Length of a training whose trigger is not a length.
        self._limit = None if self._length else limit
        #: Whether the trigger fired, and not the limit.
        self._has_fired = False
        self.should_stop = False
        self._check_length(limit)

    @property
    def training_lengths(self) -> list[tuple[float, Unit]]:
        """Maximum lengths of the training, such as ``(20, "epoch")``, of which the shortest decides."""
        limit = None if self._limit is None else self._limit.training_length
        return [length for length in (self.trigger.training_length, limit) if length is not None]

    def _check_length(self, limit: IntervalTrigger | None) -> None:
        """Log a warning if the planned length has no effect, because the stop trigger has another one."""
        length = self._length
        if length and limit and length.unit == limit.unit and length.period > limit.period:
            _logger.warning(
                "max_%ss=%s has no effect, because stop_trigger=(%s, %r) sets the length of the training. Pass the "
                "same number of %ss.",
                *(limit.unit, limit.period, length.period, length.unit, length.unit),
            )
        own = None if length else self.trigger.training_length
        if own and limit and own[1] == limit.unit and own[0] < limit.period:
            _logger.warning(
                "max_%ss=%s has no effect, because the stop trigger ends the training after %s %ss. Pass "
                "max_trigger=(%s, %r) to it.",
                *(limit.unit, limit.period, *own, limit.period, limit.unit),
            )

    def evaluate(self, manager: Manager) -> None:
        """Evaluate the stop trigger after an iteration.

        Args:
            manager: The manager.
        """
        if self._length is not None:
            # Not evaluate(): an explicit iteration number can skip the exact end.
            self.should_stop = self._length.is_reached(manager.updater)
        else:
            self._has_fired = self.trigger.evaluate(manager)
            self.should_stop = self._has_fired or self._is_limit_reached(manager.updater)

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        with named_failure(describe_part(STOP_TRIGGER), self.trigger):
            stop_trigger = self.trigger.state_dict()
        return {"is_over": self._has_fired if self._limit else self.should_stop, "stop_trigger": stop_trigger}

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
        # A length or a patience decides by its current number, which may be higher than that of the snapshot.
        if self._length is not None:
            self._has_fired = has_ended(self._length, progress)
        elif isinstance(self.trigger, EarlyStoppingTrigger):
            self._has_fired = self.trigger.is_reached(progress)
        else:
            self._has_fired = state["is_over"] and STOP_TRIGGER not in allowed
        self.should_stop = self._has_fired or self._is_limit_reached(progress)

    def describe_stop(self, progress: Progress) -> tuple[str, str]:
        """Return text for a message: how the training ended, and what to change to continue it.

        Args:
            progress: Progress of the training.
        """
        length = self._length if self._is_planned else self._limit
        if length is not None and has_ended(length, progress):
            return "", f"increase max_{length.unit}s, which is {length.period}{_describe_excess(length, progress)}"
        if self._length is not None:
            excess = _describe_excess(self._length, progress)
            return "", f"increase stop_trigger, which is {self._length.training_length}{excess}"
        if isinstance(self.trigger, EarlyStoppingTrigger):
            return self.trigger.describe_stop()
        return " by its stop_trigger", "change stop_trigger, and call resume(allow=['stop_trigger'])"

    def _is_limit_reached(self, progress: Progress) -> bool:
        return self._limit is not None and has_ended(self._limit, progress)


def _describe_excess(length: IntervalTrigger, progress: Progress) -> str:
    """Describe the progress of a training that is beyond a length, because this start has reduced the length."""
    if length.unit == "iteration":
        return f", to more than {progress.iteration}" if progress.iteration > length.period else ""
    return f", to more than {progress.epoch_detail:g}" if progress.epoch_detail > length.period else ""
