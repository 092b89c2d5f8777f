"""An end to a training that cannot recover."""

from __future__ import annotations

import torch
from torch import Tensor

from pte_tracking._distributed.sharding import local_tensor
from pte_tracking._interface.extension import Extension, Manager
from pte_tracking.extensions._parameters import named_tensors

_MAX_NAMES = 10


class FailOnNonNumber(Extension):
    """Raises RuntimeError when a parameter of a model or its gradient holds NaN or an infinity.

    It runs after every iteration, or as often as ``extend(..., trigger=)`` says: before the snapshots, so that none of
    such a model is taken. It looks at all models of the manager; each time the host waits for the device once. It
    reports nothing.

    Args:
        check_grad: Whether to look at the gradients.

    State in snapshots: none.
    """

    needs_model_state = True

    def __init__(self, *, check_grad: bool = True) -> None:
        self._check_grad = check_grad

    @torch.no_grad()
    def __call__(self, manager: Manager) -> None:
        tensors = {
            key: tensor
            for name, model in manager.models.items()
            for key, tensor in named_tensors(model, True, self._check_grad, name)()
        }
        non_finite = _find_non_finite(tensors)
        if not non_finite:
            return
        suffix = f" and {len(non_finite) - _MAX_NAMES} more" if len(non_finite) > _MAX_NAMES else ""
        raise RuntimeError(
            f"the training diverged: after iteration {manager.iteration} there are NaN or infinite values in "
            f"{', '.join(non_finite[:_MAX_NAMES])}{suffix}"
        )


def _find_non_finite(tensors: dict[str, Tensor]) -> list[str]:
    if not tensors:
        return []
    device = next(iter(tensors.values())).device
    flags = torch.stack([_stored_values(tensor).isfinite().all().to(device) for tensor in tensors.values()])
    return [key for key, is_finite in zip(tensors, flags.tolist(), strict=True) if not is_finite]


def _stored_values(tensor: Tensor) -> Tensor:
    tensor = local_tensor(tensor)  # each rank looks at its own shard
    return tensor.coalesce().values() if tensor.is_sparse else tensor
