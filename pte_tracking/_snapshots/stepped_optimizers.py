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
_MAX_STEPS = 1000  # A loop steps all of its optimizers earlier, and a training may have no snapshots.


class SteppedOptimizers:
    """Optimizers that step, noted until they are reported or for 1000 steps."""

    def __init__(self) -> None:
        self._stepped: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._remaining_steps = _MAX_STEPS
        _watch(self)

    def add(self, optimizer: Optimizer) -> None:
        """Note an optimizer that has stepped."""
        self._stepped.add(optimizer)
        self._remaining_steps -= 1
        if not self._remaining_steps:
            _watching.discard(self)

    def list_types(self, names: ParameterNames) -> list[str]:
        """Return the types of the noted optimizers with parameters of the models.

        Args:
            names: Names of the parameters of the models.
        """
        return sorted({type(optimizer).__name__ for optimizer in self._stepped if _steps_named(optimizer, names)})

    def report_missing(self, saved: Iterable[object], names: ParameterNames, rank: int) -> None:
        """Log optimizers that are not in the snapshot, at the first snapshot after a step.

        Args:
            saved: The optimizers in the snapshot.
            names: Names of the parameters of the models.
            rank: Rank of this process. Only rank 0 logs.
        """
        if not self._stepped:
            return
        _watching.discard(self)
        stepped, self._stepped = self._stepped, weakref.WeakSet()
        seen = {id(item) for optimizer in saved for item in torch_optimizers(optimizer).values()}
        inner = {id(item) for optimizer in stepped for path, item in torch_optimizers(optimizer).items() if path}
        missing = [
            type(optimizer).__name__
            for optimizer in stepped
            if id(optimizer) not in seen | inner and _steps_named(optimizer, names)
        ]
        if missing and rank == 0:
            _logger.warning(
                "snapshot: the loop steps %s, which was not passed to the manager, so that a resume does not restore "
                "its state. Pass optimizers=optimizer to the manager.",
                ", ".join(sorted(missing)),
            )


_watching: weakref.WeakSet[SteppedOptimizers] = weakref.WeakSet()
_is_hooked = False


def _watch(optimizers: SteppedOptimizers) -> None:
    global _is_hooked
    _watching.add(optimizers)
    if not _is_hooked:
        _is_hooked = True
        # One hook for the process, which stays: a hook that is removed while an optimizer steps breaks the step.
        register_optimizer_step_post_hook(_note)


def _note(optimizer: Optimizer, *_: object) -> None:
    if _watching:
        for optimizers in list(_watching):
            optimizers.add(optimizer)


def _steps_named(optimizer: Optimizer, names: ParameterNames) -> bool:
    return any(
        names.name_of(parameter) is not None for group in optimizer.param_groups for parameter in group["params"]
    )
