"""The optimizer that an extension is about."""

from __future__ import annotations

from torch.optim import Optimizer

from pte_tracking._interface.extension import Manager


def check_optimizer(argument: str, optimizer: object) -> None:
    """Raises TypeError unless it is an optimizer or the name of one."""
    if not isinstance(optimizer, str | Optimizer):
        raise TypeError(
            f"{argument}: expected the name of an optimizer of the manager, or an optimizer, got {optimizer!r} "
            f"of type {type(optimizer).__name__}"
        )


def find_optimizer(owner: str, manager: Manager, optimizer: str | Optimizer) -> Optimizer:
    """An optimizer of the manager by its name; an optimizer itself as it is.

    Raises:
        ValueError: The manager has none of that name.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if optimizer in manager.optimizers:
        return manager.optimizers[optimizer]
    available = ", ".join(map(repr, manager.optimizers)) or "none"
    raise ValueError(
        f"{owner}: no optimizer is called {optimizer!r}; the manager has {available}. "
        f"Give it one by optimizers={{{optimizer!r}: optimizer}}, or name another here"
    )


def find_option(owner: str, optimizer: Optimizer, group: int, option: str) -> object:
    """An option of a parameter group.

    Raises:
        ValueError: There is no such group, or it has no such option.
    """
    groups = optimizer.param_groups
    if not -len(groups) <= group < len(groups):
        raise ValueError(f"{owner}: {type(optimizer).__name__} has {len(groups)} parameter groups, and no {group}")
    if option not in groups[group]:
        available = ", ".join(repr(name) for name in groups[group] if name != "params")
        raise ValueError(f"{owner}: {type(optimizer).__name__} has no option {option!r}; it has {available}")
    value: object = groups[group][option]
    return value
