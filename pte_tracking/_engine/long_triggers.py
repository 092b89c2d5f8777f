"""Warnings about triggers whose interval is longer than the training."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable

from pte_tracking._engine.entry import ExtensionEntry
from pte_tracking._interface.extension import Manager, Unit
from pte_tracking.extensions.training_snapshot import TrainingSnapshot
from pte_tracking.triggers import IntervalTrigger

_logger = logging.getLogger("pte_tracking")


def warn_long_triggers(entries: Iterable[ExtensionEntry], manager: Manager) -> None:
    """Log a warning for each extension whose trigger does not fire before the training ends.

    Args:
        entries: The extensions.
        manager: The manager.
    """
    if (length := manager.training_length) is None:
        return
    for entry in entries:
        extension, trigger = entry.extension, entry.trigger
        if type(trigger) is not IntervalTrigger or entry.call_before_training:
            continue
        if isinstance(extension, TrainingSnapshot) and extension.saves_last_state(trigger):
            continue
        if _iterations(trigger.training_length, manager) > _iterations(length, manager):
            _logger.warning(
                "The trigger (%s, %r) of the extension %r does not fire in this training, whose length is (%s, %r).",
                *(trigger.period, trigger.unit, entry.name, *length),
            )


def _iterations(length: tuple[float, Unit], manager: Manager) -> float:
    number, unit = length
    if unit == "iteration":
        return number
    return number * manager.iters_per_epoch if manager.updater.has_epoch_length else math.nan  # NaN: not comparable
