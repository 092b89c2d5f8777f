"""PyTorch's learning rate schedulers as an extension."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pte_tracking._interface.extension import Extension, Manager, TriggerLike
from pte_tracking._store.values import check_key, to_number
from pte_tracking.triggers import get_trigger

#: Steps a scheduler.
Stepper = Callable[[Manager, Any], object]


def _default_stepper(manager: Manager, scheduler: Any) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        LRScheduler.step_by_value("val/loss")(manager, scheduler)
    else:
        scheduler.step()


class LRScheduler(Extension):
    """Steps a learning rate scheduler.

    It runs at the end of each epoch, or when ``trigger`` says, and calls the scheduler's ``step()``; that of
    ``ReduceLROnPlateau`` with the value reported as ``val/loss``. It reports nothing: see
    :func:`~pte_tracking.extensions.observe_lr`.

    Args:
        scheduler: One of ``torch.optim.lr_scheduler``, or anything with ``step()``, ``state_dict()`` and
            ``load_state_dict()``.
        stepper: Called with the manager and the scheduler instead of its ``step()``; see :meth:`step_by_value`.
        trigger: When it runs.
        wait_for_first_optimizer_step: Do not step it before its optimizer's first step; a gradient scaler may skip the
            first ones.

    Raises:
        TypeError: It is no scheduler, the stepper no function, or there is no optimizer whose first step could be seen.

    State in snapshots: the scheduler's state.
    """

    def __init__(
        self,
        scheduler: Any,
        *,
        stepper: Stepper = _default_stepper,
        trigger: TriggerLike = (1, "epoch"),
        wait_for_first_optimizer_step: bool = False,
    ) -> None:
        missing = [name for name in ("step", "state_dict", "load_state_dict") if not hasattr(scheduler, name)]
        if missing or isinstance(scheduler, type | Optimizer):  # an optimizer has the same three
            raise TypeError(
                f"scheduler: expected one of torch.optim.lr_scheduler, such as StepLR(optimizer, 10), got {scheduler!r}"
            )
        if not callable(stepper):
            raise TypeError(f"stepper: expected a function of the manager and the scheduler, got {stepper!r}")
        self.scheduler = scheduler
        self.trigger = get_trigger(trigger)
        self._stepper = stepper
        self._is_waiting = wait_for_first_optimizer_step
        if self._is_waiting:
            if not isinstance(getattr(scheduler, "optimizer", None), Optimizer):
                raise TypeError(
                    f"wait_for_first_optimizer_step: {type(scheduler).__name__} has no attribute 'optimizer' to watch"
                )
            self._wait_for_step(scheduler.optimizer)

    def __call__(self, manager: Manager) -> None:
        if not self._is_waiting:
            self._stepper(manager, self.scheduler)

    @staticmethod
    def step_by_value(key: str) -> Stepper:
        """A stepper that hands the scheduler a reported value, under ``torch.distributed`` its mean over the ranks.

        Raises:
            ValueError: When it is called: the value was not reported in this iteration.
        """
        check_key(key)

        def step(manager: Manager, scheduler: Any) -> None:
            # Of all ranks: with a value of its own each would go on at another rate, and the weights would part.
            is_reported = key in manager.observation
            value = to_number(key, manager.observation[key]) if is_reported else 0.0
            total, ranks = manager.world.all_reduce_sum([value, is_reported])
            if not ranks:
                reported = ", ".join(map(repr, manager.observation)) or "nothing"
                raise ValueError(
                    f"LRScheduler: {key!r} was not reported in this iteration; reported was {reported}. Let it run "
                    "when the value comes (trigger=), or step by another: stepper=LRScheduler.step_by_value(key)"
                )
            scheduler.step(total / ranks)

        return step

    def state_dict(self) -> dict[str, Any]:
        return {"scheduler": self.scheduler.state_dict(), "is_waiting": self._is_waiting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state["scheduler"])
        self._is_waiting = state["is_waiting"]

    def _wait_for_step(self, optimizer: Optimizer) -> None:
        def stop_waiting(*_: object) -> None:
            self._is_waiting = False
            handle.remove()

        handle = optimizer.register_step_post_hook(stop_waiting)
