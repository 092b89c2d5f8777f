"""Lookup of optimizers and their options by extensions."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer

from pte_tracking._interface.extension import Manager


def check_optimizer(argument: str, optimizer: object) -> None:
    """Raise TypeError unless a value is a string, an optimizer, or an object with parameter groups like one."""
    if not isinstance(optimizer, str | Optimizer) and not hasattr(optimizer, "param_groups"):
        raise TypeError(
            f"{argument}: expected an optimizer or the name of an optimizer of the manager, got {optimizer!r} "
            f"of type {type(optimizer).__name__}"
        )


def find_optimizer(owner: str, manager: Manager, optimizer: str | Optimizer) -> Optimizer:
    """Return an optimizer of the manager by name, or the given optimizer.

    Args:
        owner: Name of the calling extension, for error messages.
        manager: Manager that has the optimizer.
        optimizer: Name in the manager, or an optimizer.

    Raises:
        ValueError: If the manager has no optimizer of that name.
    """
    if not isinstance(optimizer, str):
        return optimizer
    if optimizer in manager.optimizers:
        return manager.optimizers[optimizer]
    available = ", ".join(map(repr, manager.optimizers)) or "none"
    raise ValueError(
        f"{owner}: unknown optimizer {optimizer!r}. Optimizers of the manager: {available}. "
        f"Pass optimizers={{{optimizer!r}: optimizer}} to the manager or select another optimizer."
    )


def find_option(owner: str, optimizer: Optimizer, group: int, option: str) -> object:
    """Return an option of a parameter group.

    Args:
        owner: Name of the calling extension, for error messages.
        optimizer: Optimizer that has the parameter group.
        group: Index of the parameter group. Negative values count from the end.
        option: Name of the option, such as ``"lr"``.

    Raises:
        TypeError: If the optimizer has no parameter groups.
        ValueError: If the group or the option does not exist.
    """
    groups: list[dict[str, Any]] | None = getattr(optimizer, "param_groups", None)
    if groups is None:
        raise TypeError(f"{owner}: {type(optimizer).__name__} has no param_groups. Pass the optimizer that it wraps.")
    if not -len(groups) <= group < len(groups):
        raise ValueError(
            f"{owner}: unknown parameter group {group} of {type(optimizer).__name__}. "
            f"Number of parameter groups: {len(groups)}."
        )
    if option not in groups[group]:
        available = ", ".join(repr(name) for name in groups[group] if name != "params")
        raise ValueError(
            f"{owner}: unknown option {option!r} of {type(optimizer).__name__}. Available options: {available}."
        )
    value: object = groups[group][option]
    return value
