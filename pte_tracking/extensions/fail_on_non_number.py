"""Detection of NaN and infinite values in models."""

from __future__ import annotations

import torch
from torch import Tensor

from pte_tracking._distributed.sharding import local_tensor
from pte_tracking._distributed.wrappers import unwrap
from pte_tracking._interface.extension import Extension, Manager
from pte_tracking.extensions._parameters import NamedTensors

_MAX_NAMES = 10


class FailOnNonNumber(Extension):
    """Extension that stops the training when a weight or a gradient is NaN or infinite.

    The extension runs after every iteration, or according to ``extend(..., trigger=...)``. It runs before snapshots, so
    that a diverged model is not saved. It checks all models of the manager, and raises ``RuntimeError`` with the names
    of the affected parameters. The status of the run is then FAILED. Each check synchronizes with the device once.

    The extension reports no values. Snapshots contain no state of the extension.

    Args:
        check_grad: Whether to check the gradients as well as the weights. Defaults to True.

    Example:
        >>> import torch
        >>> import pte_tracking as pte
        >>> from pte_tracking import extensions
        >>> model = torch.nn.Linear(1, 1)
        >>> manager = pte.ExtensionsManager(
        ...     model, 1, [extensions.FailOnNonNumber()], iters_per_epoch=1, sinks=[]
        ... )
        >>> with manager, manager.run_iteration():
        ...     torch.nn.init.constant_(model.bias, float("nan"))
        Traceback (most recent call last):
            ...
        RuntimeError: Training diverged at iteration 1. NaN or infinite values in: main/bias/data
    """

    def __init__(self, *, check_grad: bool = True) -> None:
        self._check_grad = check_grad

    @torch.no_grad()
    def __call__(self, manager: Manager) -> None:
        tensors = {
            key: tensor
            for name, model in manager.models.items()
            for key, tensor in NamedTensors([unwrap(model)], True, self._check_grad, name).read()
        }
        non_finite = _find_non_finite(tensors)
        if not non_finite:
            return
        suffix = f" and {len(non_finite) - _MAX_NAMES} more" if len(non_finite) > _MAX_NAMES else ""
        raise RuntimeError(
            f"Training diverged at iteration {manager.iteration}. NaN or infinite values in: "
            f"{', '.join(non_finite[:_MAX_NAMES])}{suffix}"
        )


def _find_non_finite(tensors: dict[str, Tensor]) -> list[str]:
    if not tensors:
        return []
    device = next(iter(tensors.values())).device
    flags = torch.stack([_stored_values(tensor).isfinite().all().to(device) for tensor in tensors.values()])
    return [key for key, is_finite in zip(tensors, flags.tolist(), strict=True) if not is_finite]


def _stored_values(tensor: Tensor) -> Tensor:
    tensor = local_tensor(tensor)  # Each rank checks its shard.
    return tensor.coalesce().values() if tensor.is_sparse else tensor
