"""Optimizers that a training steps but that its snapshots do not contain."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable

from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from pte_tracking._snapshots.inner_optimizers import torch_optimizers
from pte_tracking._snapshots.parameter_names import ParameterNames
from pte_tracking._snapshots.unsaved_schedulers import ids_within

_logger = logging.getLogger("pte_tracking")
_MAX_STEPS = 1000  # A loop steps all of its optimizers earlier, and a training may have no snapshots.


class SteppedOptimizers:
    """Optimizers that step, noted until they are reported or for 1000 steps.

    Args:
        current_iteration: Returns the number of completed iterations.
    """

    def __init__(self, current_iteration: Callable[[], int] = lambda: 0) -> None:
        self._current_iteration = current_iteration
        #: Optimizers with the iterations in which they stepped first and last.
        self._stepped: weakref.WeakKeyDictionary[Optimizer, tuple[int, int]] = weakref.WeakKeyDictionary()
        self._remaining_steps = _MAX_STEPS
        _watch(self)

    def add(self, optimizer: Optimizer) -> None:
        """Note an optimizer that has stepped."""
        iteration = self._current_iteration()
        self._stepped[optimizer] = self._stepped.get(optimizer, (iteration,))[0], iteration
        self._remaining_steps -= 1
        if not self._remaining_steps:
            _watching.discard(self)

    def list_types(self, names: ParameterNames) -> list[str]:
        """Return the types of the noted optimizers with parameters of the models.

        Args:
            names: Names of the parameters of the models.
        """
        return sorted({type(optimizer).__name__ for optimizer in self._stepped if _steps_named(optimizer, names)})

    def report_missing(
        self, saved: Iterable[object], others: Iterable[object], names: ParameterNames, rank: int
    ) -> None:
        """Log optimizers that are not in the snapshot, once, at the first snapshot after their steps.

        An optimizer without a parameter of the models is logged if it steps in several iterations. One that is created
        for an iteration, for example to find an adversarial input, has no state to restore.

        Args:
            saved: The optimizers in the snapshot.
            others: Other objects with a state in the snapshot that may contain optimizers.
            names: Names of the parameters of the models.
            rank: Rank of this process. Only rank 0 logs.
        """
        stepped = list(self._stepped.items())
        seen = {id(item) for optimizer in saved for item in torch_optimizers(optimizer).values()}
        seen |= {id(item) for optimizer, _ in stepped for path, item in torch_optimizers(optimizer).items() if path}
        missing = [(optimizer, first < last) for optimizer, (first, last) in stepped if id(optimizer) not in seen]
        named = [optimizer for optimizer, _ in missing if _steps_named(optimizer, names)]
        unnamed = [(optimizer, is_kept) for optimizer, is_kept in missing if optimizer not in named]
        if unnamed:
            elsewhere = set(ids_within(others)) | set(map(id, _passed))
            unnamed = [(optimizer, is_kept) for optimizer, is_kept in unnamed if id(optimizer) not in elsewhere]
        kept = [optimizer for optimizer, is_kept in unnamed if is_kept]
        if named or kept or (stepped and not unnamed):
            _watching.discard(self)
            self._stepped.clear()
        if named and rank == 0:
            _logger.warning(
                "snapshot: the loop steps %s, which was not passed to the manager, so a resume does not restore its "
                "state. Pass optimizers=optimizer to the manager.",
                _type_names(named),
            )
        if kept and rank == 0:
            _logger.warning(
                "snapshot: the loop steps %s, but neither this optimizer nor the model with its parameters was passed "
                "to the manager, so a resume restores neither. Pass both, for several as models={'main': model, "
                "'critic': critic} and optimizers={'main': optimizer, 'critic': critic_optimizer}.",
                _type_names(kept),
            )


def note_passed(optimizer: object) -> None:
    """Note an optimizer that a training saves, which no other training of the process has to report."""
    _passed.update(torch_optimizers(optimizer).values())


_passed: weakref.WeakSet[Optimizer] = weakref.WeakSet()
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


def _type_names(optimizers: Iterable[Optimizer]) -> str:
    return ", ".join(sorted(type(optimizer).__name__ for optimizer in optimizers))


def _steps_named(optimizer: Optimizer, names: ParameterNames) -> bool:
    return any(
        names.name_of(parameter) is not None for group in optimizer.param_groups for parameter in group["params"]
    )
