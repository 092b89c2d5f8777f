"""Sharded tensors: the DTensor of torch, to which ``fully_shard`` converts parameters."""

from __future__ import annotations

from typing import Any, cast

from torch import Tensor


def is_sharded(tensor: Tensor) -> bool:
    """Return whether a tensor is a DTensor, of which each rank may have a shard."""
    # The import of DTensor for isinstance() would take half a second.
    return hasattr(tensor, "full_tensor")


def full_tensor(tensor: Tensor) -> Tensor:
    """Gather a sharded tensor; all ranks have to call this. Other tensors are returned unchanged."""
    return cast(Any, tensor).full_tensor() if is_sharded(tensor) else tensor


def local_tensor(tensor: Tensor) -> Tensor:
    """Return the shard of this rank. Tensors that are not sharded are returned unchanged."""
    return cast(Any, tensor).to_local() if is_sharded(tensor) else tensor
