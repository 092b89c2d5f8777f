"""Optimizers that a training steps but that its snapshots do not contain."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from pte_tracking._snapshots.inner_optimizers import torch_optimizers
from pte_tracking._snapshots.parameter_names import ParameterNames

_logger = logging.getLogger("pte_tracking")


class SteppedOptimizers:
    """Optimizers that step the parameters of some models, noted until the first snapshot."""

    def __init__(self) -> None:
        self._stepped: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        stepped = self._stepped
        # torch keeps the function, which must not keep this object.
        handle = register_optimizer_step_post_hook(lambda optimizer, *_: stepped.add(optimizer))
        self._stop = weakref.finalize(self, handle.remove)

    def report_missing(self, saved: Iterable[object], names: ParameterNames, rank: int) -> None:
        """Log optimizers that are not in the snapshot, at the first snapshot after a step.

        Args:
            saved: The optimizers in the snapshot.
            names: Names of the parameters of the models.
            rank: Rank of this process. Only rank 0 logs.
        """
        if not self._stepped or not self._stop.alive:
            return
        self._stop()
        seen = {id(item) for optimizer in saved for item in torch_optimizers(optimizer).values()}
        inner = {id(item) for optimizer in self._stepped for path, item in torch_optimizers(optimizer).items() if path}
        missing = [
            type(optimizer).__name__
            for optimizer in self._stepped
            if id(optimizer) not in seen | inner and _steps_named(optimizer, names)
        ]
        if missing and rank == 0:
            _logger.warning(
                "snapshot: the loop steps %s, which was not passed to the manager, so that a resume does not restore "
                "its state. Pass optimizers=optimizer to the manager.",
                ", ".join(sorted(missing)),
            )


def _steps_named(optimizer: Optimizer, names: ParameterNames) -> bool:
    return any(
        names.name_of(parameter) is not None for group in optimizer.param_groups for parameter in group["params"]
    )
