"""Averages of the weights of a training that its snapshots do not contain."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.optim.swa_utils import AveragedModel

from pte_tracking._snapshots.unsaved_schedulers import ids_within

_logger = logging.getLogger("pte_tracking")


class UnsavedAverages:
    """Averages of the weights of saved models that no saved object is or contains.

    A resume would start such an average again, and the weights that the user evaluates would differ without an error.
    Averages of other trainings in the process are not updated meanwhile.

    Args:
        models: The models in the snapshot.
        saved: Other objects with a state in the snapshot.
        alive: All objects of the process.
    """

    def __init__(self, models: Iterable[Any], saved: Iterable[Any], alive: Iterable[object]) -> None:
        modules, objects = list(models), list(saved)
        known = {id(part) for item in [*modules, *objects] if isinstance(item, nn.Module) for part in item.modules()}
        known.update(ids_within(objects))
        shapes = [_shapes(model) for model in modules]
        # By type(): the attribute __class__ of a proxy may import or compute its target.
        averages: list[Any] = [
            item for item in alive if issubclass(type(item), AveragedModel) and id(item) not in known
        ]
        self._counts = {weakref.ref(item): int(item.n_averaged) for item in averages if _shapes(item.module) in shapes}

    def report_updated(self) -> None:
        """Log once if one of the averages was updated since the first snapshot."""
        averages = [(reference(), count) for reference, count in self._counts.items()]
        if any(average is not None and average.n_averaged > count for average, count in averages):
            self._counts = {}
            _logger.warning(
                "snapshot: an AveragedModel, which the training updates, is not part of the snapshot, so a resume "
                "starts the average again. Pass state_objects={'average': averaged_model} to the manager."
            )


def _shapes(model: nn.Module) -> list[tuple[int, ...]]:
    return [tuple(parameter.shape) for parameter in model.parameters()]
