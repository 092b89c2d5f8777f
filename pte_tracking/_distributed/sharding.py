"""Sharded tensors: the DTensor of torch, to which ``fully_shard`` converts parameters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

from torch import Tensor, nn


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, of which each rank may have a shard."""
    # The import of DTensor for isinstance() would take half a second.
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor; all ranks have to call this. Other tensors are returned unchanged."""
    return cast(Any, tensor).full_tensor() if is_sharded(tensor) else tensor


def has_unsharded_gradients(parts: Iterable[nn.Module]) -> bool:
    """Return whether a model of ``fully_shard`` has gradients that are not reduced to its shards yet.

    Args:
        parts: Modules of the model.
    """
    # torch has no public access to them.
    states = [cast(Any, part)._get_fsdp_state() for part in parts if hasattr(type(part), "_get_fsdp_state")]
    groups = [getattr(state, "_fsdp_param_group", None) for state in states]
    parameters = [parameter for group in groups for parameter in getattr(group, "fsdp_params", ())]
    unsharded = [getattr(parameter, "_unsharded_param", None) for parameter in parameters]
    return any(getattr(parameter, "grad", None) is not None for parameter in unsharded) or any(
        getattr(parameter, "unsharded_accumulated_grad", None) is not None for parameter in parameters
    )


def local_tensor(tensor: Tensor) -> Tensor:
    """Return the shard of this rank. Tensors that are not sharded are returned unchanged."""
    return cast(Any, tensor).to_local() if is_sharded(tensor) else tensor
