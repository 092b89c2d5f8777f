"""Gradients that were accumulated since the last step of their optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from pte_tracking._distributed.sharding import has_unsharded_gradients, is_sharded
from pte_tracking._snapshots.inner_optimizers import torch_optimizers
from pte_tracking._snapshots.kept_gradients import USED_VERSION, KeptGradients, gradient_content
from pte_tracking._snapshots.module_tree import ModuleTree


class SavedGradients(NamedTuple):
    """Gradients of one optimizer.

    Attributes:
        accumulated: Gradients that the next step will use, by parameter name.
        zero: Names of the parameters whose gradients are zero or were used. A gradient of zero is not the same as
            none: an optimizer with momentum changes the parameter.
        are_kept: Whether the loop does not zero the gradients after a step, so the next one uses them again.
    """

    accumulated: dict[str, Tensor]
    zero: list[str]
    are_kept: bool = False


def watch_steps(optimizer: object) -> None:
    """Mark the gradients of an optimizer as used after each of its steps.

    Args:
        optimizer: The optimizer, or an object that contains it. Steps of other objects are not noticed.
    """
    for item in torch_optimizers(optimizer).values():
        if _mark_used not in item._optimizer_step_post_hooks.values():
            item.register_step_post_hook(_mark_used)


def mark_used(optimizer: object) -> None:
    """Mark the current gradients of an optimizer as used, after a gradient scaler decided whether to step it."""
    for item in torch_optimizers(optimizer).values():
        _mark_used(item)


def save_gradients(optimizer: object, names: Mapping[int, str]) -> SavedGradients:
    """Return the gradients of an optimizer that were accumulated since its last step.

    Args:
        optimizer: The optimizer, or an object that contains it.
        names: Names of the parameters by identity.
    """
    present = {
        names[id(parameter)]: parameter.grad
        for parameter in stepped_parameters(optimizer)
        if id(parameter) in names and parameter.grad is not None and parameter.grad.shape == parameter.shape
    }
    are_kept = _are_kept(optimizer)
    pending = {name: gradient for name, gradient in present.items() if are_kept or not _is_used(gradient)}
    nonzero = dict(zip(pending, _are_nonzero(pending.values()), strict=True))
    return SavedGradients(
        {name: gradient for name, gradient in pending.items() if nonzero[name]},
        # An empty sparse gradient changes nothing.
        [name for name, item in present.items() if not nonzero.get(name) and item.layout is torch.strided],
        are_kept,
    )


def has_unsynchronized(models: Iterable[ModuleTree], optimizer: object) -> bool:
    """Return whether gradients of sharded models were accumulated without synchronization, as with ``no_sync()``.

    The sharded parameters do not have these gradients, so they cannot be saved.

    Args:
        models: The modules of each model.
        optimizer: The optimizer, or an object that contains it.
    """
    models = list(models)
    return any(has_unsharded_gradients(tree.parts) for tree in models) or (
        # FullyShardedDataParallel keeps them in place of the gradients of the shard.
        any(tree.is_flat for tree in models)
        and any(item.grad is not None and item.grad.shape != item.shape for item in stepped_parameters(optimizer))
    )


def load_gradients(optimizer: object, names: Mapping[int, str], saved: SavedGradients) -> None:
    """Restore the gradients of an optimizer. Gradients that are not in the snapshot are removed.

    Args:
        optimizer: The optimizer, or an object that contains it.
        names: Names of the parameters by identity.
        saved: The saved gradients.
    """
    if saved.are_kept:
        for item in torch_optimizers(optimizer).values():
            KeptGradients.of(item).are_kept = True
    for parameter in stepped_parameters(optimizer):
        name = names.get(id(parameter))
        if name in saved.accumulated and saved.accumulated[name].shape == parameter.shape:
            gradient = saved.accumulated[name].to(parameter.device, copy=True)
            parameter.grad = gradient if gradient.dtype == parameter.dtype else gradient.to(parameter.dtype)
        else:
            parameter.grad = torch.zeros_like(parameter) if name in saved.zero else None


def _mark_used(optimizer: Optimizer, *_: object) -> None:
    # After each step, so this code is short.
    kept = KeptGradients.of(optimizer)
    if kept.are_kept is None:
        kept.note_step(optimizer)
    else:
        kept.finish()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            gradient = parameter.grad
            if gradient is not None:
                if type(gradient) is not Tensor:
                    gradient = gradient_content(gradient)
                gradient._pte_tracking_used_version = gradient._version


def _are_kept(optimizer: object) -> bool:
    found = [KeptGradients.of(item) for item in torch_optimizers(optimizer).values()]
    for item in found:
        item.note_snapshot()
    return any(item.are_kept for item in found)


def _is_used(gradient: Tensor) -> bool:
    content = gradient if type(gradient) is Tensor else gradient_content(gradient)
    return bool(getattr(content, USED_VERSION, None) == content._version)


def stepped_parameters(optimizer: object) -> Iterator[Tensor]:
    """Yield the parameters of an optimizer, or of those in an object that contains them."""
    seen: set[int] = set()
    for item in torch_optimizers(optimizer).values():
        for group in item.param_groups:
            for parameter in group["params"]:
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    yield parameter


def _are_nonzero(gradients: Iterable[Tensor]) -> list[bool]:
    """Return whether each gradient has an element that is not zero. Waits once for each device."""
    flags = [_has_nonzero(gradient) for gradient in gradients]
    by_device: dict[torch.device, list[int]] = {}
    for index, flag in enumerate(flags):
        by_device.setdefault(flag.device, []).append(index)
    result = [False] * len(flags)
    for indices in by_device.values():
        values = torch.stack([flags[index] for index in indices]).tolist()
        for index, value in zip(indices, values, strict=True):
            result[index] = value
    return result


def _has_nonzero(gradient: Tensor) -> Tensor:
    if is_sharded(gradient):
        return torch.tensor(True)  # All ranks save their shards, whether or not these are zero.
    return cast(Any, gradient)._values().any() if gradient.is_sparse else gradient.any()
