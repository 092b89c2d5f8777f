"""Values that nobody reports, looked at from time to time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from pte_tracking._interface.extension import PRIORITY_WRITER, Extension, Manager
from pte_tracking._store.values import check_key
from pte_tracking.extensions._optimizers import check_optimizer, find_optimizer, find_option
from pte_tracking.reporter import report


def observe_value(observation_key: str, target_func: Callable[[Manager], Any]) -> Extension:
    """An extension that reports what a function returns.

    It runs at the end of each epoch, or when ``extend(..., trigger=)`` says, and reports ``observation_key``.

    Args:
        observation_key: The key.
        target_func: Takes the manager and returns a number.

    Raises:
        TypeError: An argument is of the wrong type.

    State in snapshots: none.
    """
    return _Observer("observe_value", observation_key, target_func)


def observe_lr(
    optimizer_name: str | Optimizer = "main", param_group: int = 0, observation_key: str = "lr"
) -> Extension:
    """An extension that reports the learning rate.

    It runs at the end of each epoch, or when ``extend(..., trigger=)`` says, and reports ``observation_key``. That the
    manager has no such optimizer is told when it is registered.

    Args:
        optimizer_name: The optimizer's name in the manager, or the optimizer.
        param_group: Which of its parameter groups, counted from 0.
        observation_key: The key.

    Raises:
        TypeError: An argument is of the wrong type.

    State in snapshots: none.
    """
    check_optimizer("optimizer_name", optimizer_name)

    def learning_rate(manager: Manager) -> object:
        optimizer = find_optimizer("observe_lr", manager, optimizer_name)
        return find_option("observe_lr", optimizer, param_group, "lr")

    return _Observer("observe_lr", observation_key, learning_rate, run_on_check=True)


class _Observer(Extension):
    trigger = (1, "epoch")
    priority = PRIORITY_WRITER
    default_name = ""  # set for each, not computed as in the base class

    def __init__(
        self, default_name: str, key: str, function: Callable[[Manager], Any], run_on_check: bool = False
    ) -> None:
        if not callable(function):
            raise TypeError(f"target_func: expected a function that takes the manager, got {function!r}")
        self.default_name = default_name
        self._key = check_key(key, "observation_key")
        self._function = function
        self._runs_on_check = run_on_check

    def check(self, manager: Manager) -> None:
        if self._runs_on_check:
            self._function(manager)

    def __call__(self, manager: Manager) -> None:
        report({self._key: self._function(manager)})
