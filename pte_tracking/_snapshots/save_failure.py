"""Failures of objects that return their states."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch.optim import Optimizer

from pte_tracking._snapshots.inner_optimizers import torch_optimizers


@contextlib.contextmanager
def named_failure(description: str, target: object) -> Iterator[None]:
    """Name the object whose state cannot be saved.

    Args:
        description: The object in messages, such as ``"the optimizer 'main'"``.
        target: The object.

    Raises:
        RuntimeError: If the body raises an exception. The message names the object.
    """
    try:
        yield
    except Exception as error:
        raise RuntimeError(
            f"{description}: state_dict() of {type(target).__name__} failed with {type(error).__name__}: {error}. "
            f"{_advice(target)}"
        ) from error


def _advice(target: object) -> str:
    count = sum(map(_count_unowned, torch_optimizers(target).values()))
    if not count:
        return "Correct the object, or remove it from the manager."
    parameters, belong = ("1 parameter", "belongs") if count == 1 else (f"{count} parameters", "belong")
    return (
        f"The optimizer has the state of {parameters} that {belong} to none of its groups, probably because a "
        "group was removed. Call optimizer.state.pop(parameter, None) for each parameter of a group that you remove."
    )


def _count_unowned(optimizer: Optimizer) -> int:
    owned = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return sum(id(parameter) not in owned for parameter in optimizer.state)
