"""Extensions that report the results of functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from pte_tracking._interface.extension import PRIORITY_WRITER, Extension, Manager, TriggerLike
from pte_tracking._interface.other_names import accept_names
from pte_tracking._store.printable import describe_value
from pte_tracking._store.values import check_key
from pte_tracking.extensions._optimizers import check_optimizer, find_optimizer, find_option
from pte_tracking.reporter import report
from pte_tracking.triggers import get_trigger


def observe_value(
    observation_key: str, target_func: Callable[[Manager], Any], *, trigger: TriggerLike = (1, "epoch")
) -> Extension:
    """Return an extension that reports the result of a function.

    The extension runs at the end of each epoch, or according to ``trigger``, before the extensions that read reported
    values. It reports ``observation_key``. Snapshots contain no state of the extension.

    Args:
        observation_key: Key of the reported value.
        target_func: Function that takes the manager and returns a number.
        trigger: When the extension runs. Defaults to ``(1, "epoch")``.

    Returns:
        The extension.

    Raises:
        TypeError: If ``observation_key`` is not a string, or if ``target_func`` is not callable.
        ValueError: If ``observation_key`` is empty, or ``trigger`` is invalid.

    Example:
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> best = extensions.MaxValue("val/accuracy")
        >>> observe = extensions.observe_value("val/accuracy/best", lambda manager: best.best_value)
        >>> manager = pte.ExtensionsManager({}, 2, [best], iters_per_epoch=1, sinks=[])
        >>> manager.extend(observe, priority=pte.PRIORITY_READER)
        >>> with manager:
        ...     for accuracy in [0.75, 0.5]:
        ...         with manager.run_iteration():
        ...             pte.report({"val/accuracy": accuracy})
        >>> manager.observation["val/accuracy/best"]
        0.75
    """
    return _Observer("observe_value", observation_key, target_func, trigger)


@accept_names(optimizer="optimizer_name")
def observe_lr(
    optimizer_name: str | Optimizer = "main",
    param_group: int = 0,
    observation_key: str = "lr",
    *,
    trigger: TriggerLike = (1, "epoch"),
) -> Extension:
    """Return an extension that reports the learning rate of a parameter group.

    The extension runs at the end of each epoch, or according to ``trigger``, before the extensions that read reported
    values. It reports ``observation_key``. Snapshots contain no state of the extension.

    It also runs before :class:`~pte_tracking.extensions.LRScheduler`, in any order of registration, so it reports the
    rate of this iteration. If the loop itself steps the scheduler within the iteration, it reports the next rate. For
    several groups, pass one extension for each, with its own ``observation_key``.

    Args:
        optimizer_name: Name of the optimizer in the manager, or the optimizer, also accepted as ``optimizer``.
            Defaults to ``"main"``.
        param_group: Index of the parameter group. Negative values count from the end. Defaults to 0.
        observation_key: Key of the reported learning rate. Defaults to ``"lr"``.
        trigger: When the extension runs. Defaults to ``(1, "epoch")``.

    Returns:
        The extension. When it is registered, it raises ValueError if the optimizer or the parameter group does not
        exist.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``observation_key`` is empty, or ``trigger`` is invalid.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD([{"params": [model.weight], "lr": 0.5}, {"params": [model.bias], "lr": 2.0}])
        >>> scheduler = extensions.LRScheduler(torch.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5))
        >>> rates = [extensions.observe_lr(param_group=n, observation_key=f"lr/{n}") for n in range(2)]
        >>> manager = pte.ExtensionsManager(model, 1, [scheduler, *rates], optimizers=optimizer, iters_per_epoch=1)
        >>> with manager, manager.run_iteration(step_optimizers=["main"]):
        ...     model(torch.ones(1)).backward()
        >>> dict(manager.observation), optimizer.param_groups[1]["lr"]
        ({'lr/0': 0.5, 'lr/1': 2.0}, 1.0)
    """
    check_optimizer("optimizer_name", optimizer_name)
    if isinstance(param_group, bool) or not isinstance(param_group, int):
        raise TypeError(
            f"param_group: expected the index of a parameter group, got {describe_value(param_group)}. "
            f"Pass the key as observation_key={param_group!r}."
        )

    def learning_rate(manager: Manager) -> object:
        optimizer = find_optimizer("observe_lr", manager, optimizer_name)
        return find_option("observe_lr", optimizer, param_group, "lr")

    observer = _Observer("observe_lr", observation_key, learning_rate, trigger, run_on_check=True)
    observer.optimizer = None if isinstance(optimizer_name, str) else optimizer_name
    return observer


class _Observer(Extension):
    """Extension that reports the result of a function of the manager."""

    priority = PRIORITY_WRITER
    #: Optimizer that a snapshot contains, too.
    optimizer: Optimizer | None = None
    default_name = ""  # An instance attribute replaces the property of the base class.

    def __init__(
        self,
        default_name: str,
        key: str,
        function: Callable[[Manager], Any],
        trigger: TriggerLike,
        run_on_check: bool = False,
    ) -> None:
        if not callable(function):
            raise TypeError(f"target_func: expected a function that takes the manager, got {function!r}")
        self.default_name = default_name
        get_trigger(trigger)  # An invalid trigger is reported here and not when the extension is registered.
        self.trigger = trigger
        self._key = check_key(key, "observation_key")
        self._function = function
        self._runs_on_check = run_on_check

    def check(self, manager: Manager) -> None:
        if self._runs_on_check:
            self._function(manager)

    def __call__(self, manager: Manager) -> None:
        report({self._key: self._function(manager)})
