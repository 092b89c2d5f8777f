"""Learning rate schedulers of PyTorch as an extension."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._interface.other_names import refuse_names
from pte_tracking._store.argument_names import refuse_unknown
from pte_tracking._store.printable import describe_value
from pte_tracking._store.values import check_key, to_number
from pte_tracking.extensions._optimizer_steps import OptimizerSteps
from pte_tracking.triggers import get_trigger

_logger = logging.getLogger("pte_tracking")

#: Function that takes the manager and a scheduler and steps the scheduler.
Stepper = Callable[[Manager, Any], object]


def _default_stepper(manager: Manager, scheduler: Any) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        LRScheduler.step_by_value("val/loss")(manager, scheduler)
    else:
        scheduler.step()


class LRScheduler(Extension):
    """Extension that steps a learning rate scheduler.

    The extension runs at the end of each epoch, or according to ``trigger``, and calls the ``step()`` method of the
    scheduler. For a schedule in iterations, such as warm-up, pass ``trigger=(1, "iteration")``. The loop must not call
    ``step()``, too. A ``ReduceLROnPlateau`` scheduler receives the value reported as ``val/loss``; for another value,
    pass ``stepper=LRScheduler.step_by_value(key)``. If the optimizer has not stepped since the last run, because a
    gradient scaler skipped its steps or gradients are being accumulated, the scheduler is not stepped either.

    The extension reports no values. To report the learning rate, use :func:`~pte_tracking.extensions.observe_lr`.
    Snapshots contain the states of the scheduler and of its optimizer.

    Args:
        scheduler: Scheduler of ``torch.optim.lr_scheduler``, or an object with the methods ``step`` and ``state_dict``.
            A resume restores it only if it has ``load_state_dict``, too.
        stepper: Function called with the manager and the scheduler that steps the scheduler. See
            :meth:`step_by_value`. Defaults to the behavior described above.
        trigger: When the extension runs. Defaults to ``(1, "epoch")``.
        wait_for_first_optimizer_step: Do not step the scheduler before the first step of its optimizer, because a
            gradient scaler may skip the first steps. Defaults to False.

    Raises:
        TypeError: If ``scheduler`` is not a scheduler, if ``stepper`` is not callable, or if
            ``wait_for_first_optimizer_step`` is set and the scheduler has no attribute ``optimizer``.
        ValueError: If ``trigger`` is invalid, or if ``stepper`` is missing for a ``ReduceLROnPlateau`` scheduler with
            ``mode="max"``. During the training, if ``val/loss`` was not reported for a ``ReduceLROnPlateau`` scheduler.

    Attributes:
        scheduler: The scheduler.
        trigger: Trigger of the extension.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        >>> manager = pte.ExtensionsManager(
        ...     model, 3, [extensions.LRScheduler(scheduler)], optimizers=optimizer, iters_per_epoch=1, sinks=[]
        ... )
        >>> with manager:
        ...     for x in manager.batches([torch.ones(1)]):
        ...         with manager.run_iteration(step_optimizers=["main"]):
        ...             model(x).backward()
        ...             print(optimizer.param_groups[0]["lr"])
        1.0
        0.5
        0.25
    """

    @refuse_names(is_async="Remove it. The scheduler is stepped at the end of the iteration.")
    @refuse_unknown()
    def __init__(
        self,
        scheduler: Any,
        *,
        stepper: Stepper = _default_stepper,
        trigger: TriggerLike = (1, "epoch"),
        wait_for_first_optimizer_step: bool = False,
    ) -> None:
        missing = [name for name in ("step", "state_dict") if not hasattr(scheduler, name)]
        if missing or isinstance(scheduler, type | Optimizer):  # An optimizer has the same methods.
            raise TypeError(
                "scheduler: expected a scheduler of torch.optim.lr_scheduler, such as StepLR(optimizer, 10), "
                f"got {describe_value(scheduler)}"
            )
        if not hasattr(scheduler, "load_state_dict"):
            _logger.warning(
                "LRScheduler: %s has no load_state_dict(), so a resume does not restore its state. Add this "
                "method to resume exactly.",
                type(scheduler).__name__,
            )
        if not callable(stepper):
            raise TypeError(f"stepper: expected a function of the manager and the scheduler, got {stepper!r}")
        if stepper is _default_stepper and isinstance(scheduler, ReduceLROnPlateau) and scheduler.mode == "max":
            raise ValueError(
                "stepper: expected a function for ReduceLROnPlateau(mode='max'), because the default one passes "
                "'val/loss' to the scheduler. Pass the key of the value, such as "
                "stepper=LRScheduler.step_by_value('val/accuracy')."
            )
        self.scheduler = scheduler
        self.trigger = get_trigger(trigger)
        self._stepper = stepper
        self._steps = OptimizerSteps(self.optimizer)
        self._waits_for_first_step = wait_for_first_optimizer_step
        #: Number of steps of the scheduler at the end of the last call.
        self._step_count = 0.0
        self._has_warned = False
        self._checks_length = stepper is _default_stepper
        if wait_for_first_optimizer_step and not isinstance(self.optimizer, Optimizer):
            raise TypeError(
                f"wait_for_first_optimizer_step: expected a scheduler with the attribute 'optimizer', "
                f"got {type(scheduler).__name__}"
            )

    @property
    def optimizer(self) -> Any:
        """Optimizer of the scheduler; None if the scheduler has no such attribute."""
        return getattr(self.scheduler, "optimizer", None)

    def initialize(self, manager: Manager) -> None:
        self._step_count = self._count_steps()

    def __call__(self, manager: Manager) -> None:
        if self._count_steps() > self._step_count and not self._has_warned and manager.world.rank == 0:
            self._has_warned = True
            _logger.warning(
                "LRScheduler: %s was also stepped outside of this extension by iteration %d, so it steps too "
                "often. Remove scheduler.step() from the loop, or remove the extension and pass "
                "state_objects={'scheduler': scheduler} to the manager.",
                *(type(self.scheduler).__name__, manager.iteration),
            )
        is_due = self._steps.take()
        if is_due and (self._steps.has_ever_stepped or not self._waits_for_first_step):
            if self._checks_length:
                self._check_length(manager)
            self._stepper(manager, self.scheduler)
        self._checks_length = False
        self._step_count = self._count_steps()

    def _check_length(self, manager: Manager) -> None:
        """Log a warning if the schedule is longer than the training, because the two have different units."""
        total_steps = getattr(self.scheduler, "total_steps", None)  # of OneCycleLR
        number, unit = manager.training_length or (math.inf, "iteration")
        if not isinstance(total_steps, int) or manager.is_before_training or manager.world.rank:
            return
        if unit == "epoch" and not manager.updater.has_epoch_length:
            return
        expected = number / (manager.epoch_detail if unit == "epoch" else manager.iteration)
        # Half: a fractional period can make the first interval longer than the others.
        if expected <= total_steps / 2:
            _logger.warning(
                "LRScheduler: %s has total_steps=%d, but the extension steps it about %d times in this training. If "
                "total_steps counts iterations, pass LRScheduler(scheduler, trigger=(1, 'iteration')).",
                *(type(self.scheduler).__name__, total_steps, expected),
            )

    def _count_steps(self) -> float:
        count = getattr(self.scheduler, "last_epoch", 0)
        return count if isinstance(count, int | float) else 0

    @staticmethod
    def step_by_value(key: str) -> Stepper:
        """Return a stepper that passes a reported value to the scheduler.

        In distributed training, the scheduler receives the mean of the value over the ranks.

        Args:
            key: Key of the value in the observation.

        Returns:
            Function for the argument ``stepper``. It raises ValueError if the value was not reported in the iteration.

        Raises:
            TypeError: If ``key`` is not a string.
            ValueError: If ``key`` is empty.
        """
        check_key(key)

        def step(manager: Manager, scheduler: Any) -> None:
            # All ranks need the same value. Otherwise, their learning rates and weights would diverge.
            is_reported = key in manager.observation
            value = to_number(key, manager.observation[key]) if is_reported else 0.0
            total, ranks = manager.world.all_reduce_sum([value, is_reported])
            if not ranks:
                reported = ", ".join(map(repr, manager.observation)) or "none"
                raise ValueError(
                    f"LRScheduler: {key!r} was not reported in this iteration. Reported keys: {reported}. "
                    "Set trigger= to the iterations that report it, or select another key with "
                    "stepper=LRScheduler.step_by_value(key)."
                )
            scheduler.step(total / ranks)

        return step

    def state_dict(self) -> dict[str, Any]:
        return {"scheduler": self.scheduler.state_dict(), "steps": self._steps.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if hasattr(self.scheduler, "load_state_dict"):
            self.scheduler.load_state_dict(state["scheduler"])
            self._step_count = self._count_steps()
        self._checks_length = False
        self._steps.load_state_dict(state["steps"])
